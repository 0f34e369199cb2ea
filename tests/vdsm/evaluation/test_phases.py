"""A measurement starts exactly the phases of progress that it announces, and finishes each of them."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.evaluation.squares import PerfectModel, Squares, SquaresProgram, draw
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.protocol import ProtocolConfig, measure, phases
from vdsm.evaluation.samples import Samples, sample_phases, score_samples

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples", "rough_probes")]


SHORTLY = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]


@pytest.fixture(scope="module")
def untrained_judge(test_clips: Squares) -> Judge:
    torch.manual_seed(0)
    return Judge(3, 32, {name: len(names) for name, names in test_clips.vocabulary.items()})


@pytest.mark.parametrize(
    ("judged", "sequence_stage", "extended"),
    [
        # Each flag with and without the others on which its phases depend; `long` are the other combinations.
        pytest.param(*flags, marks=() if flags in SHORTLY else pytest.mark.long)
        for flags in itertools.product((True, False), repeat=3)
    ],
)
def test_of_a_model(
    judged: bool, sequence_stage: bool, extended: bool,
    renderer: PerfectModel, drawing: SquaresProgram, untrained_judge: Judge, train_clips: Squares, test_clips: Squares,
) -> None:  # fmt: skip
    """With and without labels, a sequence stage, and probes and a renderer."""
    config = ProtocolConfig(clip_frames=4, pairs=12, probe_clips=20, sequence_stage=sequence_stage)
    progress = CountingProgress()
    measure(
        renderer, test_clips, untrained_judge if judged else None, config, progress,
        train=train_clips if extended else None, renderer=drawing if extended else None,
        true_swap=(lambda a, b: test_clips.frames(a)) if extended else None,
    )  # fmt: skip
    announced = phases(
        renderer, config, judged=judged, train=extended, renderer=extended, inception=False, true_swap=extended
    )
    assert progress.phases == announced
    assert len(set(announced)) == len(announced)
    assert progress.done == progress.totals


@pytest.mark.parametrize(
    ("kinds", "extended"),
    [
        (("swap",), False),
        (("swap", "prior_static", "reconstruction"), True),
        pytest.param(("swap",), True, marks=pytest.mark.long),
        pytest.param(("swap", "prior_static", "reconstruction"), False, marks=pytest.mark.long),
    ],
)
def test_of_samples(
    kinds: tuple[str, ...], extended: bool,
    make_samples: Callable[..., Samples], pairs: Pairs, drawing: SquaresProgram, untrained_judge: Judge,
    test_clips: Squares,
) -> None:  # fmt: skip
    """Of swaps alone and of more kinds, with and without a renderer."""

    def render(dynamics_of: str, static_of: str) -> np.ndarray:
        return draw(0, 0, 0, 0)

    samples, progress = make_samples(kinds, render), CountingProgress()
    found = score_samples(
        untrained_judge, test_clips, pairs, {"all": samples}, 4, 0, progress,
        renderer=drawing if extended else None, true_swap=(lambda a, b: test_clips.frames(a)) if extended else None,
    )  # fmt: skip
    assert ("renderer" in found.controls) == ("moving.swap.psnr" in found.scores) == extended
    assert {"judge.action.accuracy", "swap.action.accuracy"} <= found.scores.keys()
    assert progress.phases == sample_phases(renderer=extended, true_swap=extended)
    assert progress.totals[0] == len(samples.donors)
    assert progress.done == progress.totals
