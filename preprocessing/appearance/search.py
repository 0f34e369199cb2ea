"""The pairs of clips of a split that look alike, from descriptors to a list; kept on this machine."""

import hashlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.cli.progress import ProgressDisplay
from cluster.storage import api as storage
from preprocessing.appearance.descriptors import NAMES, VERSION, usual
from preprocessing.appearance.mining import MINING_VERSION, MiningSettings, mine
from preprocessing.appearance.motion import CELLS, MAX_CLIPS, motion_map, shows_one_motion
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.appearance.stored import read_descriptors, read_embeddings
from preprocessing.dataset.cache import cache_folder
from preprocessing.dataset.reader import ClipDataset

log = logging.getLogger(__name__)


def find_pairs(clips: ClipDataset, descriptor: str, settings: MiningSettings, cache: Path | None = None) -> MinedPairs:
    """Return the pairs of clips that look alike.

    Args:
        clips: the split.
        descriptor: `colour`, `texture`, or an .npz of embeddings.
        settings: how neighbours become pairs.
        cache: folder of the cache, by default that of the shards.

    Raises:
        ValueError: the descriptor does not suit the clips.
        UserError: the embeddings are not as they must be.
    """
    if descriptor == "colour" and clips.frame_shape[-1] == 1:
        raise ValueError(
            "training.appearance.descriptor is colour, but the frames are grey; "
            f"set it to {usual(clips.frame_shape[-1])}, or to an .npz of your own embeddings"
        )
    vectors: NDArray[np.int16] | NDArray[np.float64]
    with ProgressDisplay(phases=2) as progress:
        progress.start("reading descriptors", len(clips), unit="clips")
        if descriptor in NAMES:
            vectors = read_descriptors(clips, descriptor, cache, progress.advance)
        else:
            vectors = read_embeddings(descriptor, list(clips.keys))
        video = Video.of(clips)
        kept = (cache or cache_folder()) / "appearance" / f"pairs-{_identity(clips, vectors, video, settings)}.npz"
        progress.start("finding clips that look alike")
        found = _cached(kept, len(clips))
        if found is None:
            found = mine(vectors, video, settings)
            if video.most_windows() > 1 and len(clips) <= MAX_CLIPS:
                progress.expect(phases=3)
                progress.start("reading where clips move", len(clips), unit="clips")
                maps = np.zeros((len(clips), CELLS * CELLS), dtype=np.int64)
                for index in range(len(clips)):
                    maps[index] = motion_map(clips.frames(index))
                    progress.advance()
                found = replace(found, one_motion=shows_one_motion(found, video, maps))
            storage.write_bytes(str(kept), found.to_bytes())
    return found


def _identity(
    clips: ClipDataset, vectors: NDArray[np.int16] | NDArray[np.float64], video: Video, settings: MiningSettings
) -> str:
    """Return a hash of everything that the pairs depend on."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "threads"}
    shards = [shard["sha256"] for shard in clips.shards]  # the motion is that of the frames
    # The JSON of a list of all of this, without a list of all keys.
    stated = json.dumps([VERSION, MINING_VERSION, chosen, vectors.shape, []])
    digest = hashlib.sha256(stated.removesuffix("]]").encode())
    for number, key in enumerate(clips.keys):
        digest.update(f"{', ' if number else ''}{json.dumps(key)}".encode())
    digest.update(f"], {json.dumps(shards)}]".encode())
    for array in (vectors, video.sources, video.starts):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _cached(path: Path, clips: int) -> MinedPairs | None:
    try:
        found = MinedPairs.from_bytes(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if len(found) == clips else None
