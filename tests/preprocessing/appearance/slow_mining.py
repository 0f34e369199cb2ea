"""Mining of pairs, restated clip by clip: an oracle for `preprocessing.appearance.mining`."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import MinedPairs, Video


class Mined(NamedTuple):
    """What is compared; distances are rounded."""

    pairs: list[tuple[int, int]]
    distances: list[float]
    mutual_share: float


def unit(vectors: Any) -> list[list[int]]:
    """Return vectors of length 2^15 - 1, rounded."""
    lengths = [math.sqrt(sum(value * value for value in vector)) for vector in vectors.tolist()]
    return [
        [round(value / (length or 1) * (2**15 - 1)) for value in vector]
        for vector, length in zip(vectors.tolist(), lengths, strict=True)
    ]


def distance(a: Any, b: Any) -> float:
    product = sum(int(x) * int(y) for x, y in zip(a, b, strict=True))
    squares = [sum(int(x) ** 2 for x in vector) for vector in (a, b)]
    if not all(squares):
        return 1.0
    # The root of each square alone, as ties are decided by the last bit.
    return max(0.0, 1 - product / (math.sqrt(squares[0]) * math.sqrt(squares[1])))


def windows_of(video: Video, clip: int) -> list[int]:
    """Return the other clips of a clip's video; none if some source has two clips with the same start."""
    origins = list(zip(video.sources.tolist(), video.starts.tolist(), strict=True))
    if len(set(origins)) < len(origins):
        return []
    return [other for other in range(len(origins)) if other != clip and origins[other][0] == origins[clip][0]]


def neighbours(descriptors: Any, settings: MiningSettings, one: int) -> list[int]:
    """Return those before the widest gap in the sorted list of distances."""
    if not any(descriptors[one]):
        return []
    described = [other for other in range(len(descriptors)) if any(descriptors[other])]
    reach = min(settings.neighbours, len(described) - 2)
    ranked = sorted((distance(descriptors[one], descriptors[other]), other) for other in described if other != one)
    far = [value for value, _ in ranked[: reach + 1]]
    end = len(far)
    if len(far) > reach and reach > 0:
        gaps = [after - before for before, after in itertools.pairwise(far)]
        end = gaps.index(max(gaps)) + 1
    near = [other for _, other in ranked[: min(end, max(reach, 0))]]
    limit = math.inf if settings.max_distance is None else settings.max_distance
    return [other for other in near if distance(descriptors[one], descriptors[other]) <= limit]


def spread(clips: list[int], limit: int) -> list[int]:
    """Return up to `limit` of the clips, evenly spread."""
    shown = min(limit, len(clips))
    return sorted({clips[round(n * (len(clips) - 1) / max(shown - 1, 1))] for n in range(shown)})


def wholes(descriptors: Any, video: Video) -> Any:
    """Return a descriptor of each video: of the mean over its windows."""
    sums = [
        [sum(int(row[column]) for row, source in zip(descriptors, video.sources, strict=True) if source == number)
         for column in range(len(descriptors[0]))]
        for number in range(max(video.sources.tolist()) + 1)
    ]  # fmt: skip
    return unit(np.array(sums))


def mine(descriptors: Any, video: Video, settings: MiningSettings) -> Mined:
    clips = range(len(descriptors))
    are_windows = any(windows_of(video, clip) for clip in clips)
    compared = wholes(descriptors, video) if are_windows else descriptors
    found = {(one, other) for one in range(len(compared)) for other in neighbours(compared, settings, one)}
    mutual = {(one, other) for one, other in found if (other, one) in found}
    kept = mutual if settings.mutual else found | {(other, one) for one, other in found}
    if are_windows:
        of = [
            [clip for clip in clips if video.sources[clip] == n and any(descriptors[clip])]
            for n in range(len(compared))
        ]
        each = {one: max(32 // sum(first == one for first, _ in kept), 1) for one, _ in kept}
        kept = {(clip, other) for one, two in kept for clip in of[one] for other in spread(of[two], each[one])}
    for lone in set(clips) - {one for one, _ in kept}:
        kept = kept | {(lone, other) for other in spread(windows_of(video, lone), settings.neighbours)}
    pairs = sorted(kept)
    distances = [distance(descriptors[one], descriptors[other]) for one, other in pairs]
    return Mined(pairs, [round(value, 5) for value in distances], len(mutual) / len(found) if found else 0.0)


def listed(pairs: MinedPairs) -> Mined:
    """Return pairs in the same form."""
    both = [(int(one), int(other)) for one, other in zip(pairs.firsts, pairs.partners, strict=True)]
    return Mined(both, [round(float(value), 5) for value in pairs.distances], float(pairs.summary[0]))


def apart(count: int) -> Video:
    """Return clips that are a source each."""
    return Video(np.arange(count), np.zeros(count))
