"""The built-in generator of articulated figures in RGB, rendered from signed distances.

A figure is a combination of four static attributes (skin, hat, shirt, trousers). Every figure performs every action,
each time with a random phase and speed that follow from the seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figure_motion import ACTIONS, Joints, joints_at
from preprocessing.sources.generated import Colour, choose_identities, rng_for, split_items, version_fingerprint

Array = NDArray[np.float64]

VERSION = "1"
"""Incremented when the rendering changes, so that shards of another version are detected."""
UNITS = 64
"""Height and width of a frame in the unit of joint positions and radii: pixels of a frame of 64x64."""
FRAMES_PER_SECOND = 8.0
FRAMES_PER_CYCLE = 8
"""Frames in which an action is performed once, at mean speed."""
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
    """Every chosen figure performs every action.

    Args:
        config: the settings.
        seed: seed of the figures, and of the phase and speed of each clip.
        repeat: how many times `config.clip_frames` a clip has. The first of them do not depend on it.
    """

    untrusted = False

    def __init__(self, config: FiguresConfig, seed: int, repeat: int = 1) -> None:
        self.factors: Factors = {}
        self.vocabulary = VOCABULARY
        self._config, self._seed, self._frames = config, seed, config.clip_frames * repeat
        chosen = choose_identities("figures", Figure, VOCABULARY, count=config.identities, seed=seed)
        self._figures = {f"figure{number:04d}": figure for number, figure in chosen}

    def items(self) -> list[Item]:
        """Return one item per figure."""
        size = len(ACTIONS) * self._frames * self._config.size**2 * 3
        return split_items(
            "figures", self._figures, test_fraction=self._config.test_fraction, estimated_bytes=size, clips=len(ACTIONS)
        )

    def figure(self, key: str) -> Figure:
        """Return the attributes of the figure of an item."""
        return self._figures[key]

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield one clip per action."""
        figure = self._figures[item.key]
        for action, name in enumerate(ACTIONS):
            yield Clip(
                key=f"{item.key}-{name}",
                frames=render(figure, joints_at(name, self._phases(item.key, action)), self._config.size),
                labels={"action": action, **vars(figure)},
                identity=item.key,
                source="figures",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def true_swap(self, motion_of: str, identity: str) -> NDArray[np.uint8]:
        """Return a figure in the motion of a clip, given by its key, with its phase and speed: uint8 [T, H, W, 3]."""
        performer, _, name = motion_of.partition("-")
        joints = joints_at(name, self._phases(performer, list(ACTIONS).index(name)))
        return render(self._figures[identity], joints, self._config.size)

    def _phases(self, figure: str, action: int) -> Array:
        """Return the phases of the frames of a clip, in radians: [T]."""
        rng = rng_for(f"{self._seed}/{figure}/{action}")
        start, cycles = rng.uniform(0, 1), rng.uniform(0.75, 1.25)
        phases: Array = 2 * np.pi * (start + cycles * np.arange(self._frames) / FRAMES_PER_CYCLE)
        return phases

    def fingerprint(self) -> str:
        """Return the SHA-256 of the generator's version."""
        return version_fingerprint("figures", VERSION)


def render(figure: Figure, joints: Joints, size: int = UNITS) -> NDArray[np.uint8]:
    """Render a figure with the given joint positions in frames of `size` pixels, uint8 [T, size, size, 3]."""
    skin = list(SKINS.values())[figure.skin]
    shirt = list(SHIRTS.values())[figure.shirt]
    trousers = list(TROUSERS.values())[figure.trousers]
    canvas = _Canvas(joints.neck.shape[0], size)
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
    """T frames on which capsules (line segments with a radius) are drawn, anti-aliased over one pixel."""

    def __init__(self, length: int, size: int) -> None:
        self._size = size
        self._pixels = np.empty((length, size, size, 3))
        self._pixels[:] = BACKGROUND

    def capsule(self, start: Array, end: Array, radius: float, colour: Colour) -> None:
        """Fill the points within `radius` of the segments from `start` to `end`, both [T, 2] as (x, y), in `UNITS`."""
        scale = self._size / UNITS
        start, end, radius = scale * start, scale * end, scale * radius
        corners = np.concatenate([start, end])
        left, top = np.clip(np.floor(corners.min(axis=0) - radius - 1).astype(int), 0, self._size)
        right, bottom = np.clip(np.ceil(corners.max(axis=0) + radius + 1).astype(int), 0, self._size)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        along = (end - start)[:, None, None]
        offset = np.stack([x, y], axis=-1) - start[:, None, None]
        fraction = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9), 0, 1)
        distance = np.sqrt(((offset - fraction[..., None] * along) ** 2).sum(-1))
        coverage = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
        pixels = self._pixels[:, top:bottom, left:right]
        pixels += coverage * (np.array(colour) - pixels)

    def frames(self) -> NDArray[np.uint8]:
        """Return the frames, uint8 [T, H, W, 3]."""
        return np.rint(self._pixels).astype(np.uint8)
