"""The built-in generator of frictionless pendulums: integrates angle'' = -(g / length) sin(angle) and renders it.

A pendulum is a combination of four static attributes (rod length, bob size and colour, background). Its clips differ in
amplitude and initial phase. The period follows from length and amplitude.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources.config import PendulumConfig
from preprocessing.sources.generated import Colour, choose_identities, rng_for, split_items, version_fingerprint

Array = NDArray[np.float64]

VERSION = "1"
"""Incremented when motion or rendering change, so that shards of another version are detected."""
GRAVITY = 9.81
"""Acceleration, in m/s^2."""
STEP_S = 1 / 250
"""Longest integration step, in seconds; its error is far below a pixel over thousands of frames."""

LENGTHS = {"short": 0.55, "medium": 0.8, "long": 1.05}
"""Length of the rod, in metres."""
BOBS = {"small": 0.11, "large": 0.18}
"""Radius of the bob, in metres."""
COLOURS: dict[str, Colour] = {
    "red": (230, 50, 50),
    "green": (60, 190, 75),
    "blue": (70, 110, 240),
    "yellow": (240, 210, 60),
    "violet": (170, 80, 220),
    "white": (240, 240, 240),
}
BACKGROUNDS: dict[str, Colour] = {
    "black": (8, 8, 12), "navy": (15, 25, 70), "brown": (70, 45, 25), "grey": (95, 95, 95),
    "teal": (10, 75, 75), "plum": (70, 20, 55), "moss": (45, 60, 15), "slate": (50, 65, 85),
    "wine": (85, 15, 25), "ink": (30, 10, 60),
}  # fmt: skip
ROD: Colour = (200, 200, 200)
ROD_RADIUS = 0.02
"""In metres."""
VIEW_M = 2.6
"""Width and height of the area that a frame shows, in metres, with the pivot at its centre."""
SWINGS = {"small swing": (0.15, 0.45), "medium swing": (0.7, 1.1), "large swing": (1.5, 2.2)}
"""Range of the amplitude of each action, in radians."""
VOCABULARY = {
    "action": list(SWINGS),
    "length": list(LENGTHS),
    "bob": list(BOBS),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
}


@dataclass(frozen=True)
class Pendulum:
    """The static attributes of a pendulum, each an index into `VOCABULARY`."""

    length: int
    bob: int
    colour: int
    background: int


class PendulumSource:
    """Every chosen pendulum swings with small, medium and large amplitude."""

    untrusted = False

    def __init__(self, config: PendulumConfig, seed: int) -> None:
        self.vocabulary = VOCABULARY
        self.factors: Factors = {"angle": "frame", "period_s": "clip", "amplitude": "clip"}
        self._config, self._seed = config, seed
        chosen = choose_identities("pendulum", Pendulum, VOCABULARY, count=config.identities, seed=seed)
        self._pendulums = {f"pendulum{number:04d}": pendulum for number, pendulum in chosen}

    def items(self) -> list[Item]:
        """Return one item per pendulum."""
        config = self._config
        return split_items(
            "pendulum",
            self._pendulums,
            test_fraction=config.test_fraction,
            estimated_bytes=config.clips_per_identity * config.clip_frames * config.size**2 * 3,
            clips=config.clips_per_identity,
        )

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the clips of a pendulum, alternating between small, medium and large swings."""
        config = self._config
        pendulum = self._pendulums[item.key]
        for take in range(config.clips_per_identity):
            amplitude, period_s, angles = self._swing(item.key, take)
            yield Clip(
                key=f"{item.key}-{take}",
                frames=render(pendulum, angles, config.size),
                labels={
                    "action": take % len(SWINGS),
                    **vars(pendulum),
                    "angle": angles.tolist(),
                    "period_s": period_s,
                    "amplitude": amplitude,
                },
                identity=item.key,
                source="pendulum",
                start_s=0.0,
                fps=config.fps,
            )

    def true_swap(self, motion_of: str, identity: str) -> NDArray[np.uint8]:
        """Return a pendulum at the angles of a clip, given by its key, whatever its period: uint8 [T, H, W, 3]."""
        performer, _, take = motion_of.partition("-")
        return render(self._pendulums[identity], self._swing(performer, int(take))[2], self._config.size)

    def _swing(self, key: str, take: int) -> tuple[float, float, Array]:
        """Return amplitude in radians, period in seconds and angles [T] of a clip of a pendulum."""
        config, length = self._config, list(LENGTHS.values())[self._pendulums[key].length]
        rng = rng_for(f"{self._seed}/{key}/{take}")
        amplitude = float(rng.uniform(*list(SWINGS.values())[take % len(SWINGS)]))
        period_s = period(amplitude, length)
        start = float(rng.uniform(0, period_s))
        times = start + np.arange(config.clip_frames) / config.fps
        return amplitude, period_s, swing_angles(amplitude, length, times)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the generator's version."""
        return version_fingerprint("pendulum", VERSION)


def period(amplitude: float, length: float) -> float:
    """Return the exact period in seconds: 2 pi sqrt(length / g) / agm(1, cos(amplitude / 2)).

    Args:
        amplitude: largest angle, in radians, below pi.
        length: length of the rod, in metres.
    """
    arithmetic, geometric = 1.0, math.cos(amplitude / 2)
    while abs(arithmetic - geometric) > 1e-15:
        arithmetic, geometric = (arithmetic + geometric) / 2, math.sqrt(arithmetic * geometric)
    return 2 * math.pi * math.sqrt(length / GRAVITY) / arithmetic


def swing_angles(amplitude: float, length: float, times: Array) -> Array:
    """Return the angles [T] in radians at increasing `times` [T], in seconds after the release at `amplitude`.

    Integrates with the classical fourth-order Runge-Kutta method.
    """
    factor = -GRAVITY / length

    def slope(angle: float, speed: float) -> tuple[float, float]:
        return speed, factor * math.sin(angle)

    angle, speed, now = amplitude, 0.0, 0.0
    angles = []
    for time in times.tolist():
        steps = max(1, math.ceil((time - now) / STEP_S))
        step = (time - now) / steps
        for _ in range(steps):
            a1, s1 = slope(angle, speed)
            a2, s2 = slope(angle + step / 2 * a1, speed + step / 2 * s1)
            a3, s3 = slope(angle + step / 2 * a2, speed + step / 2 * s2)
            a4, s4 = slope(angle + step * a3, speed + step * s3)
            angle += step / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
            speed += step / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
        now = time
        angles.append(angle)
    return np.array(angles)


def render(pendulum: Pendulum, angles: Array, size: int) -> NDArray[np.uint8]:
    """Render a pendulum at angles [T] in radians, uint8 [T, size, size, 3], anti-aliased over one pixel."""
    length, radius = list(LENGTHS.values())[pendulum.length], list(BOBS.values())[pendulum.bob]
    x, y, pixel = _grid(size)
    pixels = np.empty((len(angles), size, size, 3))
    pixels[:] = list(BACKGROUNDS.values())[pendulum.background]
    bob_x, bob_y = (length * part(angles)[:, None, None] for part in (np.sin, np.cos))
    along = np.clip((x * bob_x + y * bob_y) / length**2, 0, 1)
    to_rod = np.hypot(x - along * bob_x, y - along * bob_y)
    to_bob = np.hypot(x - bob_x, y - bob_y)
    for distance, half_width, colour in (
        (to_rod, ROD_RADIUS, ROD),
        (to_bob, radius, list(COLOURS.values())[pendulum.colour]),
    ):
        coverage = np.clip((half_width - distance) / pixel + 0.5, 0, 1)[..., None]
        pixels += coverage * (np.array(colour) - pixels)
    return np.rint(pixels).astype(np.uint8)


@functools.cache
def _grid(size: int) -> tuple[Array, Array, float]:
    """Return x and y of each pixel centre relative to the pivot, and the width of a pixel, all in metres."""
    pixel = VIEW_M / size
    centres = (np.arange(size) + 0.5) * pixel - VIEW_M / 2
    return centres[None, None, :].astype(np.float64), centres[None, :, None].astype(np.float64), pixel
