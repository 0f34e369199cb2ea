"""Small labelled clips with known answers, and models whose scores are known beforehand.

A clip shows a square that moves: its action is the direction, its static attributes are colour and size. An identity is
a colour, a size and a shade of the ground (which has no label), and performs every action.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.judge import Judge, JudgeConfig, train_judge

SIZE, LENGTH = 32, 4
COLOURS = [(230, 40, 40), (40, 220, 60), (60, 90, 240), (230, 220, 60)]
GROUNDS = [0, 60, 120, 180]
SIDES = [5, 9, 13]
MOVES = {"left": (0, -4), "right": (0, 4), "up": (-4, 0), "down": (4, 0)}


def draw(colour: int, ground: int, side: int, action: int) -> NDArray[np.uint8]:
    frames = np.full((LENGTH, SIZE, SIZE, 3), GROUNDS[ground], dtype=np.uint8)
    down, right = list(MOVES.values())[action]
    for time, frame in enumerate(frames):
        offset = time - (LENGTH - 1) / 2
        top = int(SIZE / 2 + down * offset - SIDES[side] / 2)
        left = int(SIZE / 2 + right * offset - SIDES[side] / 2)
        frame[top : top + SIDES[side], left : left + SIDES[side]] = COLOURS[colour]
    return frames


class Squares:
    """One split of the moving squares; `opened` counts how often each clip was read."""

    def __init__(self, split: str) -> None:
        people = list(itertools.product(range(4), range(4), range(3)))
        order = np.random.default_rng(5).permutation(len(people))
        chosen = [people[number] for number in (order[:32] if split == "train" else order[32:])]
        table = np.array([(*person, action) for person in chosen for action in range(4)])
        self.vocabulary = {
            "action": list(MOVES),
            "colour": ["red", "green", "blue", "yellow"],
            "side": ["small", "middle", "large"],
        }
        self.labels = {"action": table[:, 3], "colour": table[:, 0], "side": table[:, 2]}
        self.people = table[:, :3].tolist()
        self.identities = ["p{}{}{}".format(*row[:3]) for row in table]
        self.keys = [f"{split}-{number:03d}" for number in range(len(table))]
        self.clip_frames = [LENGTH] * len(table)
        self.opened = np.zeros(len(table), dtype=np.int64)
        self.all_frames = [draw(*(int(value) for value in row)) for row in table]

    def __len__(self) -> int:
        return len(self.all_frames)

    def frames(self, index: int) -> NDArray[np.uint8]:
        self.opened[index] += 1
        return self.all_frames[index]


class Codes(NamedTuple):
    static: Tensor
    pose: Tensor
    dynamics: Tensor


class Renderer:
    """The perfect model: it knows which clip it is shown, and draws what it is asked for.

    Codes are the labels themselves: static = (colour, ground, side), dynamics and pose = action.
    `render(static [3], action)` may be replaced to make it wrong in a known way.
    """

    def __init__(self, *splits: Squares, render: Callable[[list[int], int], NDArray[np.uint8]] | None = None) -> None:
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


class Drawing:
    """The program that drew the squares, as the control asks for it."""

    def __init__(self) -> None:
        self.identities = ["p{}{}{}".format(*person) for person in itertools.product(range(4), range(4), range(3))]

    def draw(self, identity: str, action: int) -> NDArray[np.uint8]:
        return draw(*(int(letter) for letter in identity[1:]), action)


JUDGE_CONFIG = JudgeConfig(steps=150, batch_clips=32, clip_frames=LENGTH, shift=1)


@pytest.fixture(scope="session")
def train_clips() -> Squares:
    return Squares("train")


@pytest.fixture(scope="session")
def test_clips() -> Squares:
    return Squares("test")


@pytest.fixture(scope="session")
def judge(train_clips: Squares) -> Judge:
    return train_judge(train_clips, JUDGE_CONFIG)


@pytest.fixture(scope="session")
def renderer(train_clips: Squares, test_clips: Squares) -> Renderer:
    return Renderer(train_clips, test_clips)


@pytest.fixture(scope="session")
def wrong_renderer(
    train_clips: Squares, test_clips: Squares
) -> Callable[[Callable[[list[int], int], NDArray[np.uint8]]], Renderer]:
    """A renderer that draws something else than it is asked for."""
    return lambda render: Renderer(train_clips, test_clips, render=render)


@pytest.fixture(scope="session")
def draw_square() -> Callable[..., NDArray[np.uint8]]:
    return draw


@pytest.fixture(scope="session")
def drawing() -> Drawing:
    return Drawing()
