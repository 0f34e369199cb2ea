"""The pairs that a run trains on if it is paired by appearance: mined once, and kept in its folder as pairs.npz."""

import os

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.training.config import TrainingConfig
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import MinedPairs
from preprocessing.appearance.search import find_pairs
from preprocessing.dataset.reader import ClipDataset

PAIRS = "pairs.npz"


def run_pairs(training: TrainingConfig, clips: ClipDataset, run: str | None = None) -> MinedPairs | None:
    """Return the pairs to train on; None if the training is not paired by appearance.

    Args:
        training: settings of the training.
        clips: the training split.
        run: folder of the run, whose pairs are used if it has some.

    Raises:
        ValueError: the descriptor does not suit the clips.
        UserError: the descriptors, or the run's pairs, are not as they must be.
    """
    if training.stage1.pairing != "appearance":
        return None
    if run is not None:
        try:
            return _read(run, len(clips))
        except MissingFileError:
            pass
    settings = MiningSettings(
        neighbours=training.appearance.neighbours,
        mutual=training.appearance.mutual,
        max_distance=training.appearance.max_distance,
        threads=len(os.sched_getaffinity(0)),
    )
    return find_pairs(clips, training.appearance.descriptor, settings)


def keep_pairs(run: str, pairs: MinedPairs | None) -> None:
    """Store the pairs of a run, unless it has some."""
    if pairs is not None and not storage.exists(storage.join(run, PAIRS)):
        storage.write_bytes(storage.join(run, PAIRS), pairs.to_bytes())


def _read(run: str, clips: int) -> MinedPairs:
    path = storage.join(run, PAIRS)
    try:
        pairs = MinedPairs.from_bytes(storage.read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it to find the same pairs again") from None
    if len(pairs) != clips:
        raise UserError(f"{path} has pairs of {len(pairs):,} clips, but the dataset has {clips:,}; restore the dataset")
    return pairs
