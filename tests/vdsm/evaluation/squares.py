"""Small labelled clips with known answers, and a model and a program that draw them perfectly.

A clip shows a moving square: its action is the direction, its static attributes are colour and size. An identity is a
colour, a size and a shade of the background (which has no label), and performs every action.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE, LENGTH = 32, 4
# Pure colours, dark backgrounds and distinct sizes: a judge gets every test clip right by a wide margin (the smallest
# difference of logits is about 3), so that neither its seed nor the rounding of a processor decides a verdict.
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
BACKGROUNDS = [0, 20, 40, 60]
SIDES = [6, 11, 16]
MOVES = {"left": (0, -4), "right": (0, 4), "up": (-4, 0), "down": (4, 0)}

Frames = NDArray[np.uint8]
Render = Callable[[list[int], int], Frames]
"""From the (colour, background, side) of an identity and an action to a clip."""


def draw(colour: int, background: int, side: int, action: int) -> Frames:
    frames = np.full((LENGTH, SIZE, SIZE, 3), BACKGROUNDS[background], dtype=np.uint8)
    down, right = list(MOVES.values())[action]
    for time, frame in enumerate(frames):
        offset = time - (LENGTH - 1) / 2
        top = int(SIZE / 2 + down * offset - SIDES[side] / 2)
        left = int(SIZE / 2 + right * offset - SIDES[side] / 2)
        frame[top : top + SIDES[side], left : left + SIDES[side]] = COLOURS[colour]
    return frames


def identity_name(identity: tuple[int, ...]) -> str:
    return "p{}{}{}".format(*identity)


class Squares:
    """One split of the moving squares; `opened` counts how often each clip was read."""

    def __init__(self, split: str) -> None:
        everyone = list(itertools.product(range(4), range(4), range(3)))
        order = np.random.default_rng(5).permutation(len(everyone))
        chosen = [everyone[number] for number in (order[:32] if split == "train" else order[32:])]
        table = np.array([(*identity, action) for identity in chosen for action in range(4)])
        self.vocabulary = {
            "action": list(MOVES),
            "colour": ["red", "green", "blue", "yellow"],
            "side": ["small", "middle", "large"],
        }
        self.labels = {"action": table[:, 3], "colour": table[:, 0], "side": table[:, 2]}
        self.people: list[list[int]] = table[:, :3].tolist()
        self.identities = [identity_name(tuple(row[:3])) for row in table]
        self.keys = [f"{split}-{number:03d}" for number in range(len(table))]
        self.clip_frames = [LENGTH] * len(table)
        self.opened = np.zeros(len(table), dtype=np.int64)
        self.all_frames = [draw(*(int(value) for value in row)) for row in table]

    def __len__(self) -> int:
        return len(self.all_frames)

    def frames(self, index: int) -> Frames:
        self.opened[index] += 1
        return self.all_frames[index]


class Codes(NamedTuple):
    static: Tensor
    pose: Tensor
    dynamics: Tensor


class PerfectModel:
    """A model that recognises the clip that it is shown, and draws any combination of codes.

    Codes are the labels themselves: static = (colour, background, side), dynamics and pose = action.
    `render` can be replaced to make it wrong in a known way.
    """

    def __init__(self, *splits: Squares, render: Render | None = None) -> None:
        self._known = {
            frames.tobytes(): [action, *person]
            for clips in splits
            for frames, action, person in zip(clips.all_frames, clips.labels["action"], clips.people, strict=True)
        }
        self._render = render or (lambda static, action: draw(*static, action))

    def encode(self, frames: Tensor) -> Codes:
        pixels = (frames * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()
        labels = torch.tensor([self._known.get(clip.tobytes(), [0, 0, 0, 0]) for clip in pixels], dtype=torch.float32)
        action = labels[:, :1]
        return Codes(labels[:, 1:], action[:, None].expand(-1, frames.shape[1], -1), action)

    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        return dynamics[:, None].expand(-1, length, -1)

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        drawn = [
            self._render([int(value) for value in person], int(action))
            for person, action in zip(static, pose[:, 0, 0], strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).permute(0, 1, 4, 2, 3).float() / 255

    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        sizes = torch.tensor([4, 4, 3])
        return (torch.rand(count, 3, generator=generator) * sizes).floor()

    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(4, (count, 1), generator=generator).float()


class SquaresProgram:
    """The program that drew the squares, as the control `renderer` uses it."""

    def __init__(self) -> None:
        everyone = itertools.product(range(4), range(4), range(3))
        self.identities = [identity_name(identity) for identity in everyone]

    def draw(self, identity: str, action: int) -> Frames:
        return draw(*(int(letter) for letter in identity[1:]), action)
