"""The moving squares, a judge trained on them, and models whose scores are known beforehand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.vdsm.evaluation.squares import LENGTH, PerfectModel, Render, Squares, SquaresProgram, draw
from vdsm.evaluation.judge import Judge, JudgeConfig, dump_judge, parse_judge, train_judge
from vdsm.evaluation.pairs import Pairs, draw_pairs
from vdsm.evaluation.samples import Samples, wanted_donors

JUDGE_CONFIG = JudgeConfig(steps=150, batch_clips=32, clip_frames=LENGTH, shift=1)


@pytest.fixture(scope="session")
def train_clips() -> Squares:
    return Squares("train")


@pytest.fixture(scope="session")
def test_clips() -> Squares:
    return Squares("test")


@pytest.fixture(scope="session")
def judge(train_clips: Squares, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Judge:
    def make(folder: Path) -> None:
        (folder / "judge.pt").write_bytes(dump_judge(train_judge(train_clips, JUDGE_CONFIG), "squares"))

    return parse_judge((made_once("judge-of-squares", make) / "judge.pt").read_bytes(), "squares")


@pytest.fixture(scope="session")
def renderer(train_clips: Squares, test_clips: Squares) -> PerfectModel:
    return PerfectModel(train_clips, test_clips)


@pytest.fixture(scope="session")
def wrong_renderer(train_clips: Squares, test_clips: Squares) -> Callable[[Render], PerfectModel]:
    """Return a model that draws something other than what it should."""
    return lambda render: PerfectModel(train_clips, test_clips, render=render)


@pytest.fixture(scope="session")
def drawing() -> SquaresProgram:
    return SquaresProgram()


@pytest.fixture(scope="session")
def pairs(test_clips: Squares) -> Pairs:
    return draw_pairs(test_clips, 96, 0)


@pytest.fixture(scope="session")
def make_samples(test_clips: Squares, pairs: Pairs) -> Callable[..., Samples]:
    """Return samples of some kinds, drawn by `render(dynamics key, static key)`; by default perfect ones."""
    index_of = {key: index for index, key in enumerate(test_clips.keys)}

    def perfect(dynamics_of: str, static_of: str) -> np.ndarray:
        return draw(*test_clips.people[index_of[static_of]], int(test_clips.labels["action"][index_of[dynamics_of]]))

    def make(kinds: tuple[str, ...] = ("swap",), render: Callable[[str, str], np.ndarray] = perfect) -> Samples:
        donors = [pair for kind in kinds for pair in dict.fromkeys(wanted_donors(test_clips, pairs)[kind])]
        frames = np.stack([render(*pair) for pair in donors])
        return Samples(donors, lambda: frames)

    return make
