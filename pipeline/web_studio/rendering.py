"""What the model is asked for, and what it answers; both travel between processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.images import Frames
from pipeline.web_studio.codes import Code
from pipeline.web_studio.factors import Walk

Donor = Frames | Code | int
"""A clip uint8 [T, H, W, C], the codes of one, or the seed of a sample."""
Mix = Sequence[tuple[int, float]]
"""Numbers of donors with their weights, which sum to 1."""


@dataclass(frozen=True)
class Cell:
    """A clip to generate."""

    static: Mix
    """Whose identity."""
    dynamics: Mix
    """Whose action."""
    walk: Walk | None = None
    """A step of the blended static code along a factor."""


@dataclass(frozen=True)
class Reading:
    """What the model makes of a donor."""

    code: Code
    reconstruction: Frames
    """The clip decoded from its own codes: uint8 [T, H, W, C]."""
    share: float | None
    """Share of the training distribution whose static codes are less likely; None if there is nothing to compare
    with. See `vdsm.familiarity`."""
    psnr_db: float | None
    unlike: bool
    """Whether it is unlike the training data."""


@dataclass(frozen=True)
class Rendered:
    """The answer of the model."""

    readings: list[Reading]
    """Of each donor."""
    clips: list[Frames]
    """Of each cell: uint8 [T, H, W, C]."""


@dataclass(frozen=True)
class Encoded:
    """Static codes of clips, and which clips are unlike the training data."""

    static: NDArray[np.float32]
    """[N, K]"""
    unlike: NDArray[np.bool_]
    """[N]; False where there is nothing to compare with."""


def blend(codes: Sequence[NDArray[np.float32]], mix: Mix) -> NDArray[np.float32]:
    """Return the weighted mean of codes; that of points on a simplex stays on it."""
    total = sum(weight for _, weight in mix)
    mixed = sum(np.float32(weight / total) * codes[number] for number, weight in mix)
    return np.asarray(mixed, dtype=np.float32)
