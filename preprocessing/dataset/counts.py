"""The statistics of clips as indexes and manifests store them; see `preprocessing.dataset.format`."""

from typing import Annotated, NotRequired, TypedDict

from preprocessing.dataset.constraints import Count, DecimalKey, Length, Range

Side = Annotated[int, Range(1, 2**31 - 1)]
"""Length of an axis of an array."""


class PixelSums(TypedDict):
    """Exact sums over pixels, from which mean and standard deviation follow."""

    count: Count
    """Pixels per channel."""
    sum: list[Count]
    """Sum of the values, per channel."""
    sum_squares: list[Count]
    """Sum of the squared values, per channel."""


class ClipCounts(TypedDict):
    """Counts over the clips of one shard."""

    frames: Count
    seconds: float
    lengths: dict[DecimalKey, Count]
    """Frames per clip -> number of clips."""
    sizes: list[Annotated[list[Side], Length(3)]]
    """The distinct [H, W, C]."""
    labels: dict[str, dict[DecimalKey, Count]]
    """Label -> index into its vocabulary -> number of clips."""
    factors: dict[str, Annotated[list[float], Length(4)]]
    """Continuous factor -> minimum, maximum, sum, number of values."""
    pixels: PixelSums


class PixelMoments(TypedDict):
    """Mean and standard deviation of the pixels per channel, in 0..255."""

    pixel_mean: NotRequired[list[float]]
    pixel_std: NotRequired[list[float]]


class FactorRange(TypedDict):
    """The values of a continuous factor."""

    min: float
    max: float
    mean: float


class SplitStatistics(PixelMoments):
    """Counts over the clips of a split."""

    frames: NotRequired[Count]
    seconds: NotRequired[float]
    clip_lengths: NotRequired[dict[DecimalKey, Count]]
    """Frames per clip -> number of clips."""
    label_counts: NotRequired[dict[str, list[Count]]]
    """Label -> number of clips per value of its vocabulary."""
    factors: NotRequired[dict[str, FactorRange]]
