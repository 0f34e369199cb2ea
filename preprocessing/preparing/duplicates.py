"""Groups of near-duplicates: other encodings of a video, pieces of one recording, turned and mirrored copies.

Two videos are in one group if enough frames of the shorter one look like frames of the other. Groups are transitive, so
that none can be divided between the splits.
"""

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from preprocessing.linked import first_linked
from preprocessing.preparing.hashes import VARIANTS

ALIKE = 0.5
"""Share of the hashes of the shorter video that must have a counterpart in the other one."""
BYTES = 8
"""Length of a hash."""

Hashes = Sequence[Sequence[str]]
"""Hashes of a video: for each of several frames, those of its variants, upright first."""


def group_videos(videos: Sequence[Hashes], distance: int) -> list[int]:
    """Return, for each video, the index of the first video of its group.

    Args:
        videos: the hashes of each video.
        distance: number of bits in which the hashes of two frames that look alike can differ.
    """
    alike = np.array(sorted(_alike(videos, distance)), dtype=np.int64).reshape(-1, 2)
    groups: list[int] = first_linked(len(videos), alike[:, 0], alike[:, 1]).tolist()
    return groups


def _alike(videos: Sequence[Hashes], distance: int) -> set[tuple[int, int]]:
    """Return the pairs of videos that look alike, the smaller index first."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which instructions the processor has
    import faiss

    stored, owners = _upright(videos)
    if not len(stored):
        return set()
    index = faiss.IndexBinaryFlat(8 * BYTES)
    index.add(stored)
    counts = Counter(owners.tolist())
    alike: set[tuple[int, int]] = set()
    for variant in range(VARIANTS):
        queries = _packed([frame[variant] for video in videos for frame in video])
        limits, _, found = index.range_search(queries, distance + 1)  # the radius is exclusive
        counterparts: Counter[tuple[int, int]] = Counter()
        for number, own in enumerate(owners.tolist()):
            others = set(owners[found[limits[number] : limits[number + 1]]].tolist())
            counterparts.update((own, other) for other in others - {own})
        alike |= {
            (min(one, other), max(one, other))
            for (one, other), count in counterparts.items()
            if counts[one] <= counts[other] and count >= ALIKE * counts[one]
        }
    return alike


def _upright(videos: Sequence[Hashes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the upright hashes of all frames, uint8 [N, BYTES], and the index of the video of each, int64 [N]."""
    owners = np.array([index for index, video in enumerate(videos) for _ in video], np.int64)
    return _packed([frame[0] for video in videos for frame in video]), owners


def _packed(hashes: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BYTES)
