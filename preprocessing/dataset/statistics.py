"""Statistics of clips, counted per shard so that they add up to those of the dataset exactly.

Pixel sums are integers, and shards are added in the order of the plan. The result is therefore the same to the last
digit, whatever was interrupted and however many tasks ran at once.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from cluster.errors import UserError
from preprocessing.clip import Clip, Source
from preprocessing.dataset.counts import ClipCounts, PixelMoments, PixelSums, SplitStatistics
from preprocessing.dataset.schema import SchemaError


class Statistics:
    """Counts over the clips added so far.

    Args:
        source: declares the labels.
    """

    def __init__(self, source: Source) -> None:
        self._frames, self._seconds = 0, 0.0
        self._lengths: Counter[int] = Counter()
        self._sizes: set[tuple[int, ...]] = set()
        self._labels = {name: Counter[int]() for name in source.vocabulary}
        self._factors: dict[str, list[float]] = {name: [math.inf, -math.inf, 0.0, 0] for name in source.factors}
        self._pixels: PixelSums = {"count": 0, "sum": [], "sum_squares": []}

    def add(self, clip: Clip) -> None:
        """Count a clip."""
        length, height, width, channels = clip.frames.shape
        self._frames += length
        self._seconds += length / clip.fps
        self._lengths[length] += 1
        self._sizes.add((height, width, channels))
        for name, counts in self._labels.items():
            counts[int(clip.labels[name])] += 1  # type: ignore[arg-type]
        for name, (low, high, total, count) in self._factors.items():
            value = clip.labels[name]
            values = value if isinstance(value, list) else [value]
            self._factors[name] = [
                min(low, *values), max(high, *values), total + math.fsum(values), count + len(values),
            ]  # fmt: skip
        # Sum row by row first: numpy sums long rows many times faster than the three values of a pixel.
        rows = np.ascontiguousarray(clip.frames).reshape(length * height, width * channels)
        sums = rows.sum(axis=0, dtype=np.int64).reshape(width, channels).sum(axis=0)
        squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.int64).reshape(width, channels).sum(axis=0)
        self._pixels = _add_pixels(
            self._pixels,
            {"count": length * height * width, "sum": sums.tolist(), "sum_squares": squares.tolist()},
        )

    def content(self) -> ClipCounts:
        """Return the counts as the index stores them."""
        return {
            "frames": self._frames,
            "seconds": self._seconds,
            "lengths": {str(length): self._lengths[length] for length in sorted(self._lengths)},
            "sizes": [list(size) for size in sorted(self._sizes)],
            "labels": {name: {str(v): counts[v] for v in sorted(counts)} for name, counts in self._labels.items()},
            "factors": {name: values for name, values in self._factors.items() if values[3]},
            "pixels": self._pixels,
        }


def check_counts(counts: ClipCounts, vocabulary: dict[str, list[str]]) -> None:
    """Check counts that were read from an index, so that they can be added.

    Raises:
        SchemaError: they have other labels than the vocabulary, or are counts of no clips at all.
    """
    if counts["labels"].keys() != vocabulary.keys():
        raise SchemaError(f".labels are {', '.join(counts['labels'])}, not those of the vocabulary")
    for name, values in counts["labels"].items():
        if any(int(value) >= len(vocabulary[name]) for value in values):
            raise SchemaError(f".labels.{name} has a value that is not in the vocabulary")
    if any(values < 1 for _, _, _, values in counts["factors"].values()):
        raise SchemaError(".factors count no values")
    pixels = counts["pixels"]
    if not pixels["count"] or len(pixels["sum"]) != len(pixels["sum_squares"]):
        raise SchemaError(".pixels are those of no frames")
    if any(s * s > s2 * pixels["count"] for s, s2 in zip(pixels["sum"], pixels["sum_squares"])):
        raise SchemaError(".pixels have a negative variance")


def _add_pixels(one: PixelSums, other: PixelSums) -> PixelSums:
    """Add two sums. Missing channels count as 0; `clip_shape` refuses datasets where their number differs."""
    return {
        "count": one["count"] + other["count"],
        "sum": [a + b for a, b in itertools.zip_longest(one["sum"], other["sum"], fillvalue=0)],
        "sum_squares": [a + b for a, b in itertools.zip_longest(one["sum_squares"], other["sum_squares"], fillvalue=0)],
    }


def total(parts: Iterable[ClipCounts], vocabulary: dict[str, list[str]]) -> SplitStatistics:
    """Return the statistics of a split from the counts of its shards."""
    frames, seconds = 0, 0.0
    lengths: Counter[int] = Counter()
    labels = {name: [0] * len(names) for name, names in vocabulary.items()}
    factors: dict[str, list[float]] = {}
    pixels: PixelSums = {"count": 0, "sum": [], "sum_squares": []}
    for part in parts:
        frames += part["frames"]
        seconds += part["seconds"]
        lengths.update({int(length): count for length, count in part["lengths"].items()})
        for name, counts in part["labels"].items():
            for value, count in counts.items():
                labels[name][int(value)] += count
        for name, (low, high, added, values) in part["factors"].items():
            before = factors.get(name, [math.inf, -math.inf, 0.0, 0])
            factors[name] = [min(low, before[0]), max(high, before[1]), before[2] + added, before[3] + values]
        pixels = _add_pixels(pixels, part["pixels"])
    return {
        "frames": frames,
        "seconds": seconds,
        "clip_lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "label_counts": labels,
        "factors": {
            name: {"min": low, "max": high, "mean": added / values}
            for name, (low, high, added, values) in factors.items()
        },
        **pixel_moments(pixels),
    }


def pixel_moments(pixels: PixelSums) -> PixelMoments:
    """Return mean and standard deviation of the pixels per channel, in 0..255, rounded to 1/10000."""
    count = pixels["count"]
    means = [value / count for value in pixels["sum"]]
    # In integers up to the last step: a difference of large floating-point squares would lose digits.
    variances = [(s2 * count - s * s) / count**2 for s, s2 in zip(pixels["sum"], pixels["sum_squares"], strict=True)]
    return {
        "pixel_mean": [round(mean, 4) for mean in means],
        "pixel_std": [round(math.sqrt(variance), 4) for variance in variances],
    }


def clip_shape(parts: Iterable[ClipCounts]) -> list[int | None]:
    """Return the shape [T, H, W, C] of all clips; T is None where clips differ in length.

    Raises:
        UserError: clips differ in height, width or channels.
    """
    sizes: set[tuple[int, ...]] = set()
    lengths: set[int] = set()
    for part in parts:
        sizes |= {tuple(size) for size in part["sizes"]}
        lengths |= {int(length) for length in part["lengths"]}
    if len(sizes) != 1:
        raise UserError(f"clips differ in height, width or channels: {sorted(sizes)}")
    return [lengths.pop() if len(lengths) == 1 else None, *sizes.pop()]
