"""The evidence lower bound on test clips is that of the training loss, without annealing, per identity."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.tiny_models import tiny_model
from vdsm.annealing import Weights
from vdsm.disentangler import Disentangler
from vdsm.evaluation import elbo
from vdsm.evaluation.clips import stack
from vdsm.evaluation.elbo import elbo_scores
from vdsm.evaluation.scores import mean_score

TEMPERATURE, LENGTH = 3.0, 3


class Noisy:
    """Seven clips of five frames: three of ann, two of bob, one of cat and one of dan."""

    def __init__(self) -> None:
        self.identities = ["ann", "bob", "cat", "ann", "bob", "dan", "ann"]
        self.keys = [f"clip{number}" for number in range(7)]
        self._frames = np.random.default_rng(0).integers(0, 256, (7, 5, 32, 32, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return 7

    def frames(self, index: int) -> NDArray[np.uint8]:
        return self._frames[index]


CLIPS: Any = Noisy()
MEMBERS = {"ann": [0, 3, 6], "bob": [1, 4], "cat": [2], "dan": [5]}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Disentangler:
    """Return a model whose noise is 0, so that the order of the identities does not matter."""
    model = tiny_model().float()
    model.temperature = TEMPERATURE
    for stage in (model.frame_model, model.sequence_model):
        draw: Any = stage.draw_noise

        def zeros(clips: int, frames: int, generator: torch.Generator, draw: Any = draw) -> Any:
            noise = draw(clips, frames, generator)
            return type(noise)(*(torch.zeros_like(part) for part in noise))

        monkeypatch.setattr(stage, "draw_noise", zeros)
    return model


def bound(model: Disentangler, number: int, clips: list[int]) -> float:
    """Return the mean ELBO of some clips, term by term."""
    stage: Any = model.frame_model if number == 1 else model.sequence_model
    ones = Weights(pose=1.0, static=1.0, dynamics=1.0, temperature=TEMPERATURE)
    noise = stage.draw_noise(len(clips), LENGTH, torch.Generator())
    with torch.no_grad():
        terms = stage(stack(CLIPS, clips, LENGTH), noise, ones)
    return -float(terms.reconstruction + terms.kl_static + terms.kl_pose + terms.kl_dynamics)


def test_both_bounds_are_those_of_every_clip_grouped_by_identity(model: Disentangler) -> None:
    progress = CountingProgress()
    found = elbo_scores(model, CLIPS, LENGTH, 10, True, 4, progress)
    assert found.keys() == {"elbo.frame", "elbo.sequence"}
    for number, score in enumerate(found.values(), start=1):
        values = {name: bound(model, number, clips) for name, clips in MEMBERS.items()}
        assert len({round(value, 5) for value in values.values()}) == 4
        each = np.array([values[name] for name in CLIPS.identities])
        assert score.value == pytest.approx(each.mean(), rel=1e-6)
        assert (score.n, score.chance) == (7, None)
        interval = mean_score(each, np.unique(CLIPS.identities, return_inverse=True)[1], None, 4)
        assert (score.low, score.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found["elbo.frame"].value != found["elbo.sequence"].value
    assert (progress.phases, progress.totals, progress.done) == (["measuring the ELBO"], [7], [7])


def test_without_a_sequence_stage_only_the_first_is_measured(model: Disentangler) -> None:
    assert elbo_scores(model, CLIPS, LENGTH, 10, False, 4, CountingProgress()).keys() == {"elbo.frame"}


def test_an_identity_is_cut_to_a_batch_and_none_is_begun_after_enough_clips(
    model: Disentangler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert elbo_scores(model, CLIPS, LENGTH, 2, False, 4, CountingProgress())["elbo.frame"].n == 6
    first = {"ann": [0, 3], "bob": [1, 4], "cat": [2], "dan": [5]}
    found = elbo_scores(model, CLIPS, LENGTH, 2, False, 4, CountingProgress())["elbo.frame"]
    expected = sum(len(clips) * bound(model, 1, clips) for clips in first.values()) / 6
    assert found.value == pytest.approx(expected, rel=1e-6)
    sizes = set()
    for seed in range(20):
        monkeypatch.setattr(elbo, "CLIPS", 3)
        measured = elbo_scores(model, CLIPS, LENGTH, 10, False, seed, CountingProgress())["elbo.frame"].n
        assert 3 <= measured <= 5
        sizes.add(measured)
    assert sizes == {3, 4, 5}


def test_the_samples_follow_the_seed_and_no_gradient_is_kept() -> None:
    model = tiny_model().float()
    one, again, other = (elbo_scores(model, CLIPS, LENGTH, 10, True, seed, CountingProgress()) for seed in (1, 1, 2))
    assert one == again
    assert one["elbo.frame"].value != other["elbo.frame"].value
    assert one["elbo.sequence"].value != other["elbo.sequence"].value
    assert all(parameter.grad is None for parameter in model.parameters())
