"""What the indexes say of the clips of a split: the interface of all formats, and formats 1 and 2, read at once."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset.format import Manifest, ShardEntry
from preprocessing.dataset.index import read_all_samples
from preprocessing.dataset.shard_file import ClipLocation


class ClipColumns(Protocol):
    """The clips of a split, in the manifest's order; the attributes are those of `ClipDataset`."""

    @property
    def keys(self) -> Sequence[str]:
        """Key of each clip."""

    @property
    def identities(self) -> list[str]:
        """Identity of each clip."""

    @property
    def sources(self) -> list[str]:
        """Source of each clip."""

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per label, [N]."""

    @property
    def factors(self) -> dict[str, NDArray[np.float64]]:
        """Per factor of clips, [N]."""

    @property
    def clip_frames(self) -> Sequence[int]:
        """Frames of each clip."""

    @property
    def clip_shards(self) -> Sequence[int]:
        """Shard of each clip."""

    @property
    def fps(self) -> NDArray[np.float64]:
        """Frames per second of each clip, [N]."""

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """Start of each clip, [N]."""

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        """Return the factors of a clip's frames, [T] each."""

    def location(self, index: int) -> ClipLocation:
        """Return where the frames of a clip are."""

    def __len__(self) -> int: ...


class ListedClips:
    """The clips of JSON indexes, all of which are read here.

    Raises:
        DamagedDatasetError: an index is missing or was changed.
    """

    def __init__(self, url: str, shards: Sequence[ShardEntry], manifest: Manifest) -> None:
        self._locations: list[ClipLocation] = []
        self.keys: list[str] = []
        self.identities: list[str] = []
        self.sources: list[str] = []
        known: dict[str, str] = {}  # one string for all clips of a source
        kinds = manifest.get("factors", {})  # older datasets have none
        values: dict[str, list[Any]] = {name: [] for name in (*manifest["vocabulary"], *kinds)}
        rates: list[float] = []
        starts: list[float] = []
        for number, samples in enumerate(read_all_samples(url, shards, manifest)):
            for sample in samples:
                self.keys.append(sample["key"])
                self.identities.append(sample["identity"])
                self.sources.append(known.setdefault(sample["source"], sample["source"]))
                rates.append(sample["fps"])
                starts.append(sample["start_s"])
                for name, column in values.items():
                    column.append(sample["labels"][name])
                frames, height, width, channels = sample["shape"]
                self._locations.append(
                    ClipLocation(
                        shard=number,
                        offset=sample["frames_offset"],
                        length=sample["frames_length"],
                        crc32=sample["frames_crc32"],
                        shape=(frames, height, width, channels),
                    )
                )
        self.labels = {name: np.array(values[name], dtype=np.int64) for name in manifest["vocabulary"]}
        self.factors = {n: np.array(values[n], dtype=np.float64) for n, kind in kinds.items() if kind == "clip"}
        self._tracks = {
            n: [np.array(track, dtype=np.float64) for track in values[n]]
            for n, kind in kinds.items()
            if kind == "frame"
        }
        self.clip_frames = [location.shape[0] for location in self._locations]
        self.clip_shards = [location.shard for location in self._locations]
        self.fps: NDArray[np.float64] = np.array(rates, dtype=np.float64)
        self.starts_s: NDArray[np.float64] = np.array(starts, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.keys)

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        """Return the factors of a clip's frames, [T] each."""
        return {name: tracks[index] for name, tracks in self._tracks.items()}

    def location(self, index: int) -> ClipLocation:
        """Return where the frames of a clip are."""
        return self._locations[index]
