"""What is counted of a shard's clips, so that the counts of all shards add up to those of the dataset exactly.

Pixel sums are whole numbers; the order of adding up is that of the plan. So the result is the same to the last digit,
whatever was interrupted and however many tasks ran at once.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from preprocessing.clip import Clip, Source

Counts = dict[str, Any]
"""As JSON has it: frames, seconds, lengths, sizes, labels, factors, pixels."""


class Statistics:
    """Counts of the clips added so far."""

    def __init__(self, source: Source) -> None:
        self._frames, self._seconds = 0, 0.0
        self._lengths: Counter[int] = Counter()
        self._sizes: set[tuple[int, ...]] = set()
        self._labels = {name: Counter[int]() for name in source.vocabulary}
        self._factors: dict[str, list[float]] = {name: [math.inf, -math.inf, 0.0, 0] for name in source.factors}
        self._pixels: dict[str, Any] = {"count": 0, "sum": [], "sum_squares": []}

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
        # Row by row first: numpy adds up long rows many times faster than the three values of a pixel.
        rows = np.ascontiguousarray(clip.frames).reshape(length * height, width * channels)
        sums = rows.sum(axis=0, dtype=np.int64).reshape(width, channels).sum(axis=0)
        squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.int64).reshape(width, channels).sum(axis=0)
        self._pixels = _add_pixels(
            self._pixels,
            {"count": length * height * width, "sum": sums.tolist(), "sum_squares": squares.tolist()},
        )

    def content(self) -> Counts:
        """The counts as JSON has it."""
        return {
            "frames": self._frames,
            "seconds": self._seconds,
            "lengths": {str(length): self._lengths[length] for length in sorted(self._lengths)},
            "sizes": [list(size) for size in sorted(self._sizes)],
            "labels": {name: {str(v): counts[v] for v in sorted(counts)} for name, counts in self._labels.items()},
            "factors": {name: values for name, values in self._factors.items() if values[3]},
            "pixels": self._pixels,
        }


def _add_pixels(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of clips with different numbers of channels the larger number counts; such a dataset is refused at its end."""
    channels = max(len(one["sum"]), len(other["sum"]))
    summed: dict[str, Any] = {"count": one["count"] + other["count"]}
    for name in ("sum", "sum_squares"):
        pairs = (
            tuple(values[name][c] if c < len(values[name]) else 0 for values in (one, other)) for c in range(channels)
        )
        summed[name] = [a + b for a, b in pairs]
    return summed


def total(parts: Iterable[Counts], vocabulary: dict[str, list[str]]) -> Counts:
    """The statistics of a split from those of its shards.

    Returns:
        frames, seconds, clip_lengths (frames: clips), label_counts (per label, a count per name), factors (per name:
        min, max, mean) and pixel_mean and pixel_std per channel, in 0..255.
    """
    frames, seconds = 0, 0.0
    lengths: Counter[int] = Counter()
    labels = {name: [0] * len(names) for name, names in vocabulary.items()}
    factors: dict[str, list[float]] = {}
    pixels: dict[str, Any] = {"count": 0, "sum": [], "sum_squares": []}
    for part in parts:
        frames += part["frames"]
        seconds += part["seconds"]
        lengths.update({int(length): count for length, count in part["lengths"].items()})
        for name, counts in part["labels"].items():
            for value, count in counts.items():
                labels[name][int(value)] += count
        for name, (low, high, added, count) in part["factors"].items():
            before = factors.get(name, [math.inf, -math.inf, 0.0, 0])
            factors[name] = [min(low, before[0]), max(high, before[1]), before[2] + added, before[3] + count]
        pixels = _add_pixels(pixels, part["pixels"])
    return {
        "frames": frames,
        "seconds": seconds,
        "clip_lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "label_counts": labels,
        "factors": {
            name: {"min": low, "max": high, "mean": added / count}
            for name, (low, high, added, count) in factors.items()
        },
        **pixel_moments(pixels),
    }


def pixel_moments(pixels: dict[str, Any]) -> dict[str, list[float]]:
    """Mean and standard deviation of the pixels per channel, in 0..255, rounded to 1/10000."""
    count = pixels["count"]
    means = [value / count for value in pixels["sum"]]
    # In whole numbers up to the last step: a difference of large squares would lose digits.
    variances = [(s2 * count - s * s) / count**2 for s, s2 in zip(pixels["sum"], pixels["sum_squares"], strict=True)]
    return {
        "pixel_mean": [round(mean, 4) for mean in means],
        "pixel_std": [round(math.sqrt(variance), 4) for variance in variances],
    }
