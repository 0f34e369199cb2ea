"""Motion of the built-in figures: joint positions of each action as functions of a phase."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UPPER_ARM, FOREARM, THIGH, SHIN = 7.0, 7.0, 8.5, 8.5
"""Lengths of the limb segments, in pixels."""


@dataclass(frozen=True)
class Joints:
    """Joint positions in pixels, each [T, 2] as (x, y) with y pointing down."""

    pelvis: Array
    neck: Array
    head: Array
    arms: list[tuple[Array, Array, Array]]
    """Shoulder, elbow and hand; the viewer's left arm first."""
    legs: list[tuple[Array, Array, Array]]
    """Hip, knee and foot; the viewer's left leg first."""


@dataclass
class _Angles:
    """Angles [T] in radians, 0 pointing down and growing away from the body; lift of the body [T] in pixels."""

    shoulders: tuple[Array, Array]
    elbows: tuple[Array, Array]
    hips: tuple[Array, Array]
    knees: tuple[Array, Array]
    lift: Array
    lean: Array


def _rest(phase: Array) -> _Angles:
    zero = np.zeros_like(phase)
    return _Angles((zero + 0.25, zero + 0.25), (zero, zero), (zero + 0.08, zero + 0.08), (zero, zero), zero, zero)


def _walk(phase: Array) -> _Angles:
    angles, swing = _rest(phase), np.sin(phase)
    angles.hips = (0.6 * swing, -0.6 * swing)
    angles.knees = (-0.5 * np.clip(np.cos(phase), 0, 1), 0.5 * np.clip(-np.cos(phase), 0, 1))
    angles.shoulders = (0.1 - 0.7 * swing, 0.1 + 0.7 * swing)
    angles.lift = 1.5 * np.abs(np.cos(phase))
    return angles


def _wave(phase: Array) -> _Angles:
    angles = _rest(phase)
    angles.shoulders = (angles.shoulders[0], 2.2 + 0.25 * np.sin(phase))
    angles.elbows = (angles.elbows[0], 0.8 * np.sin(phase))
    return angles


def _jump(phase: Array) -> _Angles:
    angles = _rest(phase)
    up, down = np.clip(np.sin(phase), 0, 1), np.clip(-np.sin(phase), 0, 1)
    angles.lift = 7 * up - 5 * down
    angles.hips = (0.08 + 0.8 * down, 0.08 + 0.8 * down)
    angles.knees = (-1.4 * down, -1.4 * down)
    angles.shoulders = (0.25 + 2.7 * up, 0.25 + 2.7 * up)
    return angles


def _kick(phase: Array) -> _Angles:
    angles, high = _rest(phase), np.sin(phase / 2) ** 4
    angles.hips = (angles.hips[0], 0.08 + 1.6 * high)
    angles.shoulders = (0.25 + 1.0 * high, 0.25 + 0.5 * high)
    angles.lean = -0.35 * high
    return angles


def _bow(phase: Array) -> _Angles:
    angles, low = _rest(phase), np.sin(phase / 2) ** 2
    angles.lean = -1.1 * low
    angles.shoulders = (0.25 + 0.4 * low, 0.25 - 0.9 * low)
    return angles


def _star(phase: Array) -> _Angles:
    angles, open_ = _rest(phase), np.sin(phase / 2) ** 2
    angles.shoulders = (0.25 + 1.9 * open_, 0.25 + 1.9 * open_)
    angles.hips = (0.08 + 0.6 * open_, 0.08 + 0.6 * open_)
    angles.lift = -1.5 * open_
    return angles


_MOTIONS: dict[str, Callable[[Array], _Angles]] = {
    "walk": _walk,
    "wave": _wave,
    "jump": _jump,
    "kick": _kick,
    "bow": _bow,
    "star": _star,
}
ACTIONS = tuple(_MOTIONS)
"""Names of the actions, in the order of their labels."""


def joints_at(action: str, phase: Array) -> Joints:
    """Return the joint positions of `action` at phases [T] in radians; one cycle is 2 pi."""
    angles = _MOTIONS[action](phase)
    pelvis = np.stack([np.full_like(phase, 32.0), 40.0 - angles.lift], axis=-1)
    neck = pelvis + 13 * np.stack([np.sin(angles.lean), -np.cos(angles.lean)], axis=-1)
    head = pelvis + 22 * np.stack([np.sin(angles.lean), -np.cos(angles.lean)], axis=-1)
    across = np.stack([np.cos(angles.lean), np.sin(angles.lean)], axis=-1)
    arms, legs = [], []
    for side, sign in enumerate((-1, 1)):
        shoulder, hip = neck + sign * 7 * across + (0, 2), pelvis + np.array([sign * 4.0, 1.0])
        arms.append(_limb(shoulder, sign, angles.shoulders[side], angles.elbows[side], UPPER_ARM, FOREARM))
        legs.append(_limb(hip, sign, angles.hips[side], angles.knees[side], THIGH, SHIN))
    return Joints(pelvis, neck, head, arms, legs)


def _limb(root: Array, sign: int, first: Array, bend: Array, upper: float, lower: float) -> tuple[Array, Array, Array]:
    middle = root + upper * np.stack([sign * np.sin(first), np.cos(first)], axis=-1)
    end = middle + lower * np.stack([sign * np.sin(first + bend), np.cos(first + bend)], axis=-1)
    return root, middle, end
