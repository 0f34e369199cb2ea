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


def neighbours(descriptors: Any, video: Video, settings: MiningSettings, clip: int) -> list[int]:
    """Return the clips before the widest gap in the sorted list of distances."""
    if not any(descriptors[clip]):
        return []
    described = [other for other in range(len(descriptors)) if any(descriptors[other])]
    reach = min(settings.neighbours, len(described) - 2)
    ranked = sorted(
        (distance(descriptors[clip], descriptors[other]), other)
        for other in described
        if other != clip and other not in windows_of(video, clip)
    )
    far = [value for value, _ in ranked[: reach + 1]]
    end = len(far)
    if len(far) > reach and reach > 0:
        gaps = [after - before for before, after in itertools.pairwise(far)]
        end = gaps.index(max(gaps)) + 1
    near = [other for _, other in ranked[: min(end, max(reach, 0))]]
    limit = math.inf if settings.max_distance is None else settings.max_distance
    return [other for other in near if distance(descriptors[clip], descriptors[other]) <= limit]


def mine(descriptors: Any, video: Video, settings: MiningSettings) -> Mined:
    found = {
        (clip, other) for clip in range(len(descriptors)) for other in neighbours(descriptors, video, settings, clip)
    }
    mutual = {(one, other) for one, other in found if (other, one) in found}
    kept = mutual if settings.mutual else found | {(other, one) for one, other in found}
    for lone in set(range(len(descriptors))) - {one for one, _ in kept}:
        others = windows_of(video, lone)
        last, shown = len(others) - 1, min(settings.neighbours, len(others))
        kept = kept | {(lone, others[round(n * last / max(shown - 1, 1))]) for n in range(shown)}
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
