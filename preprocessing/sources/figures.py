"""The built-in source: articulated figures of 64x64 RGB pixels, drawn from signed distances by this module alone.

A figure is a combination of four static attributes (skin, hat, shirt, trousers); every figure performs every action,
each time with a phase and a speed drawn from the seed.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figure_motion import ACTIONS, Joints, joints_at

Array = NDArray[np.float64]
Colour = tuple[int, int, int]

VERSION = "1"
"""Raised when the drawing changes, so that shards of another version are noticed."""
SIZE = 64
"""Height and width of a frame, in pixels."""
FRAMES_PER_SECOND = 8.0
BACKGROUND: Colour = (10, 10, 18)

SKINS: dict[str, Colour] = {
    "pale": (250, 215, 190),
    "brown": (120, 70, 40),
    "green": (110, 210, 80),
    "blue": (80, 140, 240),
}
SHIRTS: dict[str, Colour] = {
    "red": (225, 45, 45),
    "yellow": (240, 210, 50),
    "teal": (30, 175, 165),
    "violet": (150, 70, 220),
    "white": (240, 240, 240),
}
TROUSERS: dict[str, Colour] = {
    "blue": (45, 85, 215),
    "orange": (240, 135, 35),
    "olive": (105, 130, 40),
    "pink": (245, 130, 190),
    "grey": (130, 135, 145),
}
HATS = ("cap", "top hat", "cone", "crown", "afro")

VOCABULARY = {
    "action": list(ACTIONS),
    "skin": list(SKINS),
    "hat": list(HATS),
    "shirt": list(SHIRTS),
    "trousers": list(TROUSERS),
}


@dataclass(frozen=True)
class Figure:
    """The static attributes of a figure, each an index into `VOCABULARY`."""

    skin: int
    hat: int
    shirt: int
    trousers: int


class FiguresSource:
    """Every chosen figure in every action."""

    untrusted = False

    def __init__(self, config: FiguresConfig, seed: int) -> None:
        self.factors: Factors = {}
        self.vocabulary = VOCABULARY
        self._config = config
        self._seed = seed
        ranges = (range(len(VOCABULARY[name])) for name in ("skin", "hat", "shirt", "trousers"))
        every = [Figure(*values) for values in itertools.product(*ranges)]
        if config.identities > len(every):
            raise ValueError(
                f"source.figures.identities is {config.identities}, but there are only {len(every)} different figures"
            )
        chosen = np.random.default_rng(seed).permutation(len(every))[: config.identities]
        self._figures = {f"figure{number:04d}": every[number] for number in chosen}

    def items(self) -> list[Item]:
        """One item per figure; the last share of the drawn order is the test split."""
        tests = max(1, round(self._config.test_fraction * len(self._figures)))
        first_test = len(self._figures) - tests
        if first_test < 1:
            raise ValueError("source.figures: test_fraction leaves no identity for training; lower it")
        size = len(ACTIONS) * self._config.clip_frames * SIZE * SIZE * 3
        return [
            Item(key=key, split="train" if index < first_test else "test", estimated_bytes=size, clips=len(ACTIONS))
            for index, key in enumerate(self._figures)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """One clip per action."""
        figure = self._figures[item.key]
        for action, name in enumerate(ACTIONS):
            clip_seed = hashlib.sha256(f"{self._seed}/{item.key}/{action}".encode()).digest()
            random = np.random.default_rng(int.from_bytes(clip_seed[:8], "little"))
            start, cycles = random.uniform(0, 1), random.uniform(0.75, 1.25)
            phases = 2 * np.pi * (start + cycles * np.arange(self._config.clip_frames) / 8)
            yield Clip(
                key=f"{item.key}-{name}",
                frames=draw(figure, joints_at(name, phases)),
                labels={"action": action, **vars(figure)},
                identity=item.key,
                source="figures",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """SHA-256 of the generator's version."""
        return hashlib.sha256(f"figures/{VERSION}".encode()).hexdigest()


def draw(figure: Figure, joints: Joints) -> NDArray[np.uint8]:
    """Frames [T, 64, 64, 3] of a figure whose joints move as given."""
    skin = list(SKINS.values())[figure.skin]
    shirt = list(SHIRTS.values())[figure.shirt]
    trousers = list(TROUSERS.values())[figure.trousers]
    canvas = _Canvas(joints.neck.shape[0])
    for hip, knee, foot in joints.legs:
        canvas.capsule(hip, knee, 3.6, trousers)
        canvas.capsule(knee, foot, 3.2, trousers)
    canvas.capsule(joints.pelvis + 0.25 * (joints.neck - joints.pelvis), joints.neck + (0, 3), 6.5, shirt)
    canvas.capsule(joints.pelvis - (3, 0), joints.pelvis + (3, 0), 4.2, trousers)
    for shoulder, elbow, hand in joints.arms:
        canvas.capsule(shoulder, elbow, 2.8, shirt)
        canvas.capsule(elbow, hand, 2.5, shirt)
        canvas.capsule(hand, hand, 3.0, skin)
    canvas.capsule(joints.head, joints.head, 6.8, skin)
    _draw_hat(canvas, HATS[figure.hat], joints.head)
    return canvas.frames()


def _draw_hat(canvas: "_Canvas", hat: str, head: Array) -> None:
    if hat == "cap":
        canvas.capsule(head + (-4.5, -5), head + (4.5, -5), 4.2, (215, 40, 90))
        canvas.capsule(head + (4, -3), head + (12, -3), 1.8, (215, 40, 90))
    elif hat == "top hat":
        canvas.capsule(head + (-10, -4.5), head + (10, -4.5), 1.8, (90, 95, 235))
        canvas.capsule(head + (0, -6), head + (0, -10), 6.0, (90, 95, 235))
    elif hat == "cone":
        for step in range(6):
            canvas.capsule(head + (0, -4.5 - 2 * step), head + (0, -4.5 - 2 * step), 7.8 - 1.3 * step, (255, 130, 60))
    elif hat == "crown":
        for x in (-6.5, 0, 6.5):
            canvas.capsule(head + (x, -5), head + (x * 1.2, -11), 2.2, (250, 200, 40))
        canvas.capsule(head + (-6, -4.5), head + (6, -4.5), 2.6, (250, 200, 40))
    else:
        for x, y in ((-8, -2), (-5.5, -7), (0, -9), (5.5, -7), (8, -2)):
            canvas.capsule(head + (x, y), head + (x, y), 5.2, (140, 85, 45))


class _Canvas:
    """T frames on which capsules (segments with a radius) are painted with soft edges one pixel wide."""

    def __init__(self, length: int) -> None:
        self._pixels = np.empty((length, SIZE, SIZE, 3))
        self._pixels[:] = BACKGROUND

    def capsule(self, start: Array, end: Array, radius: float, colour: Colour) -> None:
        """Paint the points within `radius` of the segments from `start` to `end`, both [T, 2] as (x, y) in pixels."""
        corners = np.concatenate([start, end])
        left, top = np.clip(np.floor(corners.min(axis=0) - radius - 1).astype(int), 0, SIZE)
        right, bottom = np.clip(np.ceil(corners.max(axis=0) + radius + 1).astype(int), 0, SIZE)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        along = (end - start)[:, None, None]
        offset = np.stack([x, y], axis=-1) - start[:, None, None]
        share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9), 0, 1)
        distance = np.sqrt(((offset - share[..., None] * along) ** 2).sum(-1))
        cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
        pixels = self._pixels[:, top:bottom, left:right]
        pixels += cover * (np.array(colour) - pixels)

    def frames(self) -> NDArray[np.uint8]:
        """uint8 [T, H, W, 3]."""
        return np.rint(self._pixels).astype(np.uint8)
