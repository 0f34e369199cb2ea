"""Which clips look alike, found without labels.

A clip's neighbours are the clips with the smallest cosine distance between descriptors. In the sorted list of distances
d_1 <= d_2 <= ... they end at the widest gap d_(j+1) - d_j: another clip of the same person differs by its view alone,
the next person in what it wears. A pair counts if each of the two clips is a neighbour of the other.

Windows of a video show one look, and look alike because they show the same action. So videos are compared as wholes, by
the mean of their windows' descriptors: a clip's partners are windows of the videos that are neighbours of its own.
Otherwise the many windows of one other video could be all its neighbours.

Letters: N clips, D values of a descriptor, K neighbours.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.appearance.descriptors import SCALE
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.spread import evenly_spread

Indices = NDArray[np.int64]

MINING_VERSION = 3
"""Version of the search; raise it when its pairs change."""
EXACT_CLIPS = 50_000
"""Up to this many clips are compared with all others; more are compared within clusters (an inverted file)."""
LISTS_PROBED = 24
"""Clusters searched for the neighbours of a clip."""
MAX_PARTNERS = 32
"""Windows that are partners of one clip, over all neighbouring videos."""
SPARE = 16
"""Further clips that the search, which rounds, returns for each, so that the exact order decides."""
RANDOM_PAIRS = 20_000
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """How neighbours become pairs."""

    neighbours: int = 8
    """Most neighbours of a clip, or of a video, K."""
    mutual: bool = True
    """Whether a pair needs each of the two to be a neighbour of the other."""
    max_distance: float | None = None
    """Cosine distance beyond which there is no pair; None means no limit."""
    threads: int = 1


def mine(descriptors: NDArray[np.floating] | NDArray[np.int16], video: Video, settings: MiningSettings) -> MinedPairs:
    """Return the pairs of clips that look alike.

    Args:
        descriptors: [N, D]; their length does not matter unless they are int16, which must be of one length. A clip
            with zeros alone has no partner.
        video: where each clip was cut from. Windows of one video are no pair, unless a clip has no other partner.
        settings: see there.
    """
    vectors = _quantised(descriptors)
    if video.most_windows() > 1:
        numbers = np.unique(video.sources, return_inverse=True)[1].astype(np.int64)
        video_pairs, mutual_share = _neighbour_pairs(_quantised(sums_by_video(vectors, numbers)), settings)
        is_described: NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
        pairs = _windows_of_pairs(video_pairs, numbers, is_described)
        pairs = _with_windows_of_its_video(pairs, video, len(vectors), settings.neighbours)
    else:
        pairs, mutual_share = _neighbour_pairs(vectors, settings)
    return MinedPairs.of(
        len(vectors),
        pairs,
        _distances(vectors, pairs[:, 0], pairs[:, 1]),
        mutual_share=mutual_share,
        random_distances=_random_distances(vectors),
    )


def _neighbour_pairs(vectors: NDArray[np.int16], settings: MiningSettings) -> tuple[Indices, float]:
    """Return the pairs among N descriptors [N, D], as `_pairs` does."""
    described = np.flatnonzero(vectors.any(axis=1))
    reach = min(settings.neighbours, max(len(described) - 2, 0))
    near, distances = np.full((len(vectors), reach), -1, dtype=np.int64), np.full((len(vectors), reach + 1), np.inf)
    if reach:
        own = vectors[described]
        found = _nearest(own, min(reach + 2 + SPARE, len(described)), settings.threads)
        for first in range(0, len(own), _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, len(own)))
            chosen, far = _ranked(own, rows, found[rows], described, reach + 1)
            near[described[rows]], distances[described[rows]] = chosen[:, :reach], far
    kept = _before_widest_gap(distances) & (near >= 0)
    if settings.max_distance is not None:
        kept &= distances[:, :-1] <= settings.max_distance
    return _pairs(near, kept, settings.mutual)


def sums_by_video(vectors: NDArray[np.signedinteger], sources: Indices) -> NDArray[np.int64]:
    """Return the sum of the rows [N, D] of each video's windows, exactly: [videos, D]. Videos are numbered from 0."""
    order = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[order], np.arange(int(sources.max()) + 1))
    return np.add.reduceat(vectors[order].astype(np.int64), starts, axis=0)


def _windows_of_pairs(video_pairs: Indices, sources: Indices, is_described: NDArray[np.bool_]) -> Indices:
    """Return pairs of clips, [M, 2] in ascending order: each with windows of the videos paired with its own.

    They are spread evenly over each of those videos, `MAX_PARTNERS` in all.
    """
    order = np.argsort(sources, kind="stable")
    order = order[is_described[order]]
    bounds = np.searchsorted(sources[order], np.arange(int(sources.max()) + 2))
    limit = MAX_PARTNERS // np.maximum(np.bincount(video_pairs[:, 0], minlength=len(bounds)), 1)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for one, other in video_pairs.tolist():
        own, theirs = (order[bounds[number] : bounds[number + 1]] for number in (one, other))
        chosen = theirs[evenly_spread(len(theirs), max(int(limit[one]), 1))]
        found.append(np.stack([np.repeat(own, len(chosen)), np.tile(chosen, len(own))], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _quantised(descriptors: NDArray[np.floating] | NDArray[np.signedinteger]) -> NDArray[np.int16]:
    """Return unit vectors times SCALE, rounded, so that their products are exact."""
    if descriptors.dtype == np.int16:
        return descriptors.astype(np.int16)
    values = descriptors.astype(np.float64)
    lengths = np.sqrt((values * values).sum(axis=1, keepdims=True))
    return np.rint(values / np.where(lengths > 0, lengths, 1) * SCALE).astype(np.int16)


def _nearest(vectors: NDArray[np.int16], wanted: int, threads: int) -> Indices:
    """Return the `wanted` clips with the largest inner product with each, [N, wanted]; -1 where there are fewer."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which instructions the processor has
    import faiss  # not where nothing is mined

    points = vectors.astype(np.float32) / np.float32(SCALE)
    count, size = points.shape
    flat = faiss.IndexFlatIP(size)
    index: Any = flat
    before = faiss.omp_get_max_threads()  # torch may share them
    faiss.omp_set_num_threads(threads)
    try:
        if count > EXACT_CLIPS:
            lists = int(2 * np.sqrt(count))
            index = faiss.IndexIVFFlat(flat, size, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.seed, index.cp.niter = 1, 8
            index.train(points[:: max(1, count // (50 * lists))])
            index.nprobe = LISTS_PROBED
        index.add(points)
        found: Indices = index.search(points, wanted)[1]
    finally:
        faiss.omp_set_num_threads(before)
    return found


def _ranked(
    vectors: NDArray[np.int16], rows: Indices, found: Indices, described: Indices, wanted: int
) -> tuple[Indices, NDArray[np.float64]]:
    """Return the nearest others of each row and their distances, both [rows, wanted], in order.

    The search works in float32, whose rounding depends on the machine; here distances are exact, and ties go to the
    clip that comes first.
    """
    safe = np.where(found < 0, 0, found)
    others = described[safe]
    distances = np.stack([_distances(vectors, rows, safe[:, column]) for column in range(found.shape[1])], axis=1)
    useless = (found < 0) | (safe == rows[:, None])
    distances[useless] = np.inf
    order = np.lexsort((others, distances), axis=1)[:, :wanted]
    distances = np.take_along_axis(distances, order, axis=1)
    chosen = np.where(np.isinf(distances), -1, np.take_along_axis(others, order, axis=1))
    return chosen, distances


def _distances(vectors: NDArray[np.int16], a: Indices, b: Indices) -> NDArray[np.float64]:
    """Return the cosine distances between clips, from 0 to 2."""
    found = np.empty(len(a))
    for first in range(0, len(a), _CHUNK):  # all at once, a million clips would take 20 GB
        rows = slice(first, first + _CHUNK)
        left, right = vectors[a[rows]].astype(np.int64), vectors[b[rows]].astype(np.int64)
        lengths = np.sqrt((left * left).sum(axis=-1)) * np.sqrt((right * right).sum(axis=-1))
        cosines = (left * right).sum(axis=-1) / np.where(lengths > 0, lengths, 1)
        found[rows] = np.maximum(1 - cosines, 0)
    return found


def _before_widest_gap(distances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of the K neighbours lie before the widest gap of [N, K + 1] sorted distances, bool [N, K].

    Where there are fewer than K + 1 clips, all of them do.
    """
    with np.errstate(invalid="ignore"):
        gaps = distances[:, 1:] - distances[:, :-1]
    if not gaps.shape[1]:
        return np.zeros((len(distances), 0), dtype=bool)
    last = np.nan_to_num(gaps, nan=-1).argmax(axis=1)
    kept: NDArray[np.bool_] = np.arange(gaps.shape[1]) <= last[:, None]
    return kept


def _pairs(near: Indices, kept: NDArray[np.bool_], mutual: bool) -> tuple[Indices, float]:
    """Return the pairs of clips, [M, 2], in ascending order and both directions, and the mutual share of neighbours."""
    clips, columns = np.nonzero(kept)
    found = np.stack([clips, near[clips, columns]], axis=1) if len(clips) else np.zeros((0, 2), dtype=np.int64)
    count = np.int64(max(len(near), 1))
    there, back = found[:, 0] * count + found[:, 1], found[:, 1] * count + found[:, 0]
    is_mutual = np.isin(there, back)
    share = float(is_mutual.mean()) if len(found) else 0.0
    codes = there[is_mutual] if mutual else np.union1d(there, back)
    codes = np.sort(codes)
    return np.stack([codes // count, codes % count], axis=1), share


def _with_windows_of_its_video(pairs: Indices, video: Video, count: int, limit: int) -> Indices:
    """Return the pairs, and for each clip without one up to `limit` windows of its own video, evenly spread."""
    if video.most_windows() < 2:
        return pairs
    lone = np.setdiff1d(np.arange(count), pairs[:, 0])
    order = np.argsort(video.sources, kind="stable")
    bounds = np.searchsorted(video.sources[order], np.arange(video.sources.max(initial=0) + 2))
    added = []
    for clip in lone.tolist():
        windows = order[bounds[video.sources[clip]] : bounds[video.sources[clip] + 1]]
        others = windows[windows != clip]
        chosen = others[evenly_spread(len(others), limit)]
        added.append(np.stack([np.full(len(chosen), clip), chosen], axis=1))
    together = np.concatenate([pairs, *added])
    return together[np.lexsort((together[:, 1], together[:, 0]))]


def _random_distances(vectors: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the distances of clips drawn at random, to compare those of pairs with."""
    if len(vectors) < 2:
        return np.zeros(0)
    generator = np.random.Generator(np.random.PCG64(2))
    first = generator.integers(0, len(vectors), RANDOM_PAIRS)
    second = (first + generator.integers(1, len(vectors), RANDOM_PAIRS)) % len(vectors)
    return _distances(vectors, first, second)
