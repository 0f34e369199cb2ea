"""Weights of the loss terms and the softmax temperature as functions of the progress of a stage."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vdsm.config import AnnealingConfig, CosineRamp, Spline

REFERENCE_VALUES = 64 * 64 * 3
"""Values per frame to which the weights of a recipe refer."""
MOTION_RAMP = 0.2
"""Fraction of a stage over which the weight of `motion_consistency` grows from 0: before anything decoded moves, its
gradients are large and say little."""


class Weights(NamedTuple):
    """Multipliers of the loss terms of one step, and the temperature of the static code's softmax."""

    pose: float
    static: float
    dynamics: float
    temperature: float
    static_consistency: float = 0.0
    motion_consistency: float = 0.0
    dynamics_consistency: float = 0.0
    pose_distillation: float = 0.0
    pair_tolerance: float | None = None
    """Not a weight: see `AnnealingConfig`."""


def weights_at(config: AnnealingConfig, progress: float, values_per_frame: int) -> Weights:
    """Return the annealed weights at `progress` in [0, 1], for frames of `values_per_frame` = C * H * W values."""
    scale = values_per_frame / REFERENCE_VALUES
    return Weights(
        pose=scale * spline_at(config.pose, progress),
        static=scale * ramp_at(config.static, progress),
        dynamics=scale * ramp_at(config.dynamics, progress),
        temperature=ramp_at(config.temperature, progress),
        static_consistency=scale * config.static_consistency,
        # A distance of distributions, unlike the KLs, which are divided by the number of values.
        motion_consistency=config.motion_consistency * min(progress / MOTION_RAMP, 1.0),
        dynamics_consistency=scale * config.dynamics_consistency,
        pose_distillation=scale * config.pose_distillation,
        pair_tolerance=config.pair_tolerance,
    )


def un_annealed(temperature: float) -> Weights:
    """Return the weights of the plain ELBO."""
    return Weights(pose=1.0, static=1.0, dynamics=1.0, temperature=temperature)


def ramp_at(ramp: CosineRamp, progress: float) -> float:
    """Evaluate half a cosine from `start` at 0 to `end` at `fraction`, constant from there on."""
    done = min(max(progress / ramp.fraction, 0.0), 1.0)
    return ramp.end + 0.5 * (ramp.start - ramp.end) * (1 + math.cos(math.pi * done))


def spline_at(spline: Spline, progress: float) -> float:
    """Evaluate the quadratic interpolating spline, break points halfway between inner knots, clipped to its bounds."""
    fractions = np.array([fraction for fraction, _ in spline.knots])
    values = np.array([value for _, value in spline.knots])
    # n knots determine n coefficients: 1, x, x^2, and one truncated square per break point. The n - 3 break points lie
    # halfway between adjacent knots, except in the first and last interval.
    breaks = ((fractions[1:] + fractions[:-1]) / 2)[1:-1]
    coefficients = np.linalg.solve(_truncated_squares(fractions, breaks), values)
    value = float((_truncated_squares(np.array([progress]), breaks) @ coefficients)[0])
    return min(max(value, spline.floor), spline.ceiling)


def _truncated_squares(x: NDArray[np.float64], breaks: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = [np.ones_like(x), x, x**2]
    return np.stack(powers + [np.clip(x - point, 0, None) ** 2 for point in breaks], axis=1)
