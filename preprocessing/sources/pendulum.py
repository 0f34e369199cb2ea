"""A pendulum without friction: the equation of its swing, angle'' = -(g / length) sin(angle), integrated and drawn.

A pendulum is a combination of four static attributes (length of the rod, size and colour of the bob, background); its
clips differ in how far it swings and in where it is when they begin. How long a swing takes follows from both.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources.config import PendulumConfig

Array = NDArray[np.float64]
Colour = tuple[int, int, int]

VERSION = "1"
"""Raised when motion or drawing change, so that shards of another version are noticed."""
GRAVITY = 9.81
"""m/s^2."""
STEP_S = 1 / 250
"""Longest step of the integration; its error is far below a pixel over thousands of frames."""

LENGTHS = {"short": 0.55, "medium": 0.8, "long": 1.05}
"""Of the rod, in metres; a frame shows 2.6 m."""
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
VIEW_M = 2.6
"""Width and height of what a frame shows, with the pivot in its middle."""
SWINGS = {"small swing": (0.15, 0.45), "medium swing": (0.7, 1.1), "large swing": (1.5, 2.2)}
"""The greatest angle is drawn from this range, in radians."""
VOCABULARY = {
    "action": list(SWINGS),
    "length": list(LENGTHS),
    "bob": list(BOBS),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
}
STATIC = ("length", "bob", "colour", "background")


@dataclass(frozen=True)
class Pendulum:
    """The static attributes, each an index into `VOCABULARY`."""

    length: int
    bob: int
    colour: int
    background: int


class PendulumSource:
    """Every chosen pendulum, in several swings."""

    untrusted = False

    def __init__(self, config: PendulumConfig, seed: int) -> None:
        self.vocabulary = VOCABULARY
        self.factors: Factors = {"angle": "frame", "period_s": "clip", "amplitude": "clip"}
        self._config, self._seed = config, seed
        every = [Pendulum(*values) for values in itertools.product(*(range(len(VOCABULARY[name])) for name in STATIC))]
        if config.identities > len(every):
            raise ValueError(
                f"source.pendulum.identities is {config.identities}, but there are only {len(every)} pendulums"
            )
        chosen = np.random.default_rng(seed).permutation(len(every))[: config.identities]
        self._pendulums = {f"pendulum{number:04d}": every[number] for number in chosen}

    def items(self) -> list[Item]:
        """One item per pendulum; the last share of the drawn order is the test split."""
        config = self._config
        first_test = len(self._pendulums) - max(1, round(config.test_fraction * len(self._pendulums)))
        if first_test < 1:
            raise ValueError("source.pendulum: test_fraction leaves no pendulum for training; lower it")
        size = config.clips_per_identity * config.clip_frames * config.size**2 * 3
        return [
            Item(
                key=key,
                split="train" if index < first_test else "test",
                estimated_bytes=size,
                clips=config.clips_per_identity,
            )
            for index, key in enumerate(self._pendulums)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """The swings of a pendulum: small, medium and large in turn."""
        config = self._config
        pendulum = self._pendulums[item.key]
        length = list(LENGTHS.values())[pendulum.length]
        for take in range(config.clips_per_identity):
            swing = take % len(SWINGS)
            name = hashlib.sha256(f"{self._seed}/{item.key}/{take}".encode()).digest()
            random = np.random.default_rng(int.from_bytes(name[:8], "little"))
            amplitude = float(random.uniform(*list(SWINGS.values())[swing]))
            whole = period(amplitude, length)
            lead = float(random.uniform(0, whole))
            angles = swing_angles(amplitude, length, lead + np.arange(config.clip_frames) / config.fps)
            yield Clip(
                key=f"{item.key}-{take}",
                frames=draw(pendulum, angles, config.size),
                labels={
                    "action": swing,
                    **vars(pendulum),
                    "angle": angles.tolist(),
                    "period_s": whole,
                    "amplitude": amplitude,
                },
                identity=item.key,
                source="pendulum",
                start_s=0.0,
                fps=config.fps,
            )

    def fingerprint(self) -> str:
        """SHA-256 of the generator's version."""
        return hashlib.sha256(f"pendulum/{VERSION}".encode()).hexdigest()


def period(amplitude: float, length: float) -> float:
    """Seconds of a whole swing to and fro: 2 pi sqrt(length / g) / agm(1, cos(amplitude / 2)), which is exact.

    Args:
        amplitude: greatest angle, in radians, below pi.
        length: of the rod, in metres.
    """
    arithmetic, geometric = 1.0, math.cos(amplitude / 2)
    while abs(arithmetic - geometric) > 1e-15:
        arithmetic, geometric = (arithmetic + geometric) / 2, math.sqrt(arithmetic * geometric)
    return 2 * math.pi * math.sqrt(length / GRAVITY) / arithmetic


def swing_angles(amplitude: float, length: float, times: Array) -> Array:
    """Angles [T] in radians, at increasing `times` [T] in seconds after it was let go at `amplitude`.

    Integrated by the classical Runge-Kutta method of fourth order.
    """
    pull = -GRAVITY / length

    def slope(angle: float, speed: float) -> tuple[float, float]:
        return speed, pull * math.sin(angle)

    angle, speed, now = amplitude, 0.0, 0.0
    found = []
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
        found.append(angle)
    return np.array(found)


def draw(pendulum: Pendulum, angles: Array, size: int) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3]; each edge is as soft as one pixel."""
    length, radius = list(LENGTHS.values())[pendulum.length], list(BOBS.values())[pendulum.bob]
    x, y, pixel = _grid(size)
    pixels = np.empty((len(angles), size, size, 3))
    pixels[:] = list(BACKGROUNDS.values())[pendulum.background]
    bob_x, bob_y = (length * part(angles)[:, None, None] for part in (np.sin, np.cos))
    along = np.clip((x * bob_x + y * bob_y) / length**2, 0, 1)
    to_rod = np.hypot(x - along * bob_x, y - along * bob_y)
    to_bob = np.hypot(x - bob_x, y - bob_y)
    for distance, reach, colour in (
        (to_rod, ROD_RADIUS, ROD),
        (to_bob, radius, list(COLOURS.values())[pendulum.colour]),
    ):
        cover = np.clip((reach - distance) / pixel + 0.5, 0, 1)[..., None]
        pixels += cover * (np.array(colour) - pixels)
    return np.rint(pixels).astype(np.uint8)


@functools.cache
def _grid(size: int) -> tuple[Array, Array, float]:
    """Metres to the right of and below the pivot of each pixel's middle, and the width of a pixel."""
    pixel = VIEW_M / size
    middles = (np.arange(size) + 0.5) * pixel - VIEW_M / 2
    return middles[None, None, :].astype(np.float64), middles[None, :, None].astype(np.float64), pixel
