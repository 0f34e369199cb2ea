"""Pairs of clips that look alike, as a list that a training can draw from."""

import functools
import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.linked import first_linked

Indices = NDArray[np.int64]

MAX_GROUP_SHARE = 0.2
"""Largest share of all clips that may be held out together because they are linked by pairs."""


@dataclass(frozen=True)
class Video:
    """Where clips were cut from; all arrays are [N]."""

    sources: Indices
    """Number of the clip's source."""
    starts: NDArray[np.float64]
    """Start of the clip in its source, in seconds."""

    @classmethod
    def of(cls, clips: Any) -> "Video":
        """Return the origin of the clips of a split (`ClipDataset`)."""
        mapped = getattr(clips, "mapped", None)
        if mapped is not None:
            return cls(mapped.source_numbers, mapped.starts_s)
        numbers = np.unique(np.asarray(clips.sources, dtype=object), return_inverse=True)[1].astype(np.int64)
        return cls(numbers, np.asarray(clips.starts_s, dtype=np.float64))

    @functools.cached_property
    def are_videos(self) -> bool:
        """Whether sources are videos: no two clips start at the same time of one, as those of a generator do."""
        origins = np.stack([self.sources.astype(np.float64), self.starts], axis=1)
        return len(np.unique(origins, axis=0)) == len(origins)

    def same(self, a: Indices, b: Indices) -> NDArray[np.bool_]:
        """Return whether clips are windows of one video."""
        windows: NDArray[np.bool_] = self.sources[a] == self.sources[b]
        return windows & self.are_videos

    def most_windows(self) -> int:
        """Return the number of clips of the video that has most; 1 if the sources are no videos."""
        return int(np.bincount(self.sources).max(initial=1)) if self.are_videos and len(self.sources) else 1

    def firsts(self) -> Indices:
        """Return the first clip of each clip's video, [N]; the clip itself if the sources are no videos."""
        if not self.are_videos:
            return np.arange(len(self.sources))
        _, first, number = np.unique(self.sources, return_index=True, return_inverse=True)
        return first[number].astype(np.int64)


@dataclass(frozen=True)
class MinedPairs:
    """Partners of each of N clips; clip i has `partners[offsets[i] : offsets[i + 1]]`."""

    offsets: Indices
    """[N + 1]"""
    partners: Indices
    """[M], ascending for each clip."""
    distances: NDArray[np.float32]
    """[M], cosine distance of each pair."""
    summary: NDArray[np.float64]
    """[2]: `mutual_share` and `random_distance`."""
    one_motion: NDArray[np.bool_]
    """[N], clips whose look is seen doing a single thing (`preprocessing.appearance.motion`)."""

    @classmethod
    def of(
        cls,
        count: int,
        pairs: Indices,
        distances: NDArray[np.float64],
        *,
        mutual_share: float,
        random_distances: NDArray[np.float64],
    ) -> "MinedPairs":
        """Return `count` clips with the given pairs, [M, 2] in ascending order."""
        offsets = np.searchsorted(pairs[:, 0], np.arange(count + 1)).astype(np.int64)
        median = float(np.median(random_distances)) if len(random_distances) else 0.0
        summary, one_motion = np.array([mutual_share, median]), np.zeros(count, dtype=np.bool_)
        return cls(offsets, pairs[:, 1].copy(), distances.astype(np.float32), summary, one_motion)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def mutual_share(self) -> float:
        """Return the share of neighbours that have the clip among their own."""
        return float(self.summary[0])

    @property
    def random_distance(self) -> float:
        """Return the median distance of two clips drawn at random."""
        return float(self.summary[1])

    @property
    def firsts(self) -> Indices:
        """Return the first clip of each pair, [M]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def once(self) -> Indices:
        """Return which pairs to take to have each two clips once, not from both: positions among the M pairs."""
        return np.flatnonzero(self.firsts < self.partners)

    def groups(self, video: Video) -> Indices:
        """Return for each clip the first of all clips linked with it by pairs or by their video, [N].

        Clips of a group are held out together. A group that is too large for that falls apart into its videos.
        """
        own = video.firsts()
        first = np.concatenate([self.firsts, np.arange(len(self))])
        second = np.concatenate([self.partners, own])
        group = first_linked(len(self), first, second)
        sizes = np.bincount(group, minlength=len(self))
        too_large = sizes[group] > max(MAX_GROUP_SHARE * len(self), 2)
        return np.where(too_large, own, group)

    def to_bytes(self) -> bytes:
        """Return the content of a .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "MinedPairs":
        """Return what `to_bytes` stored.

        Raises:
            ValueError: it is something else.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("its arrays are packed")  # and could unpack to a thousand times their bytes
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                columns = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
                # Older files say nothing of the motion.
                pairs = cls(**{"one_motion": np.zeros(columns["offsets"].size - 1, dtype=np.bool_), **columns})
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for foreign bytes
            raise ValueError(f"not a list of pairs: {error}") from None
        count = pairs.offsets.size - 1
        is_valid = (
            all(getattr(pairs, name).ndim == 1 for name in cls.__dataclass_fields__)
            and pairs.offsets.dtype == pairs.partners.dtype == np.int64
            and pairs.distances.dtype == np.float32
            and pairs.summary.dtype == np.float64
            and count >= 0
            and pairs.offsets[0] == 0
            and bool((np.diff(pairs.offsets) >= 0).all())
            and pairs.offsets[-1] == len(pairs.partners) == len(pairs.distances)
            and bool(((pairs.partners >= 0) & (pairs.partners < count)).all())
            and len(pairs.summary) == 2
            and pairs.one_motion.dtype == np.bool_
            and len(pairs.one_motion) == count
        )
        if not is_valid:
            raise ValueError("not a list of pairs")
        return pairs
