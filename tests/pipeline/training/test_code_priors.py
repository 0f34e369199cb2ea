"""Priors fitted at the end of a stage: of the right weights and clips, in the checkpoint, the same after a restart."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.training import code_priors
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job, stage_order
from pipeline.training.loop import train_run
from pipeline.training.state import TrainState
from vdsm.checkpoint import disentangler_of
from vdsm.disentangler import Disentangler

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]
Recorders = Callable[..., Any]
PRIORS = {
    "prior_clips": 12,
    "picture_interval": 0,
    "num_workers": 1,
    "stage1": {"steps": 12},
    "stage2": {"steps": 8},
}


def loaded(state: TrainState) -> Disentangler:
    return disentangler_of(state.to_dict(), Path("checkpoint"))


def flat(content: Any) -> list[Tensor]:
    """Return all tensors of some nested dicts and lists."""
    if isinstance(content, Tensor):
        return [content]
    values = content.values() if isinstance(content, dict) else content
    return [tensor for value in values for tensor in flat(value)]


def equal(first: Any, second: Any) -> bool:
    a, b = flat(first), flat(second)
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def recorded(tiny_job: Jobs, recorder: Recorders) -> Any:
    found = recorder()
    train_run(tiny_job(**PRIORS), found)
    return found


def test_only_the_ends_of_stages_have_priors_and_stage_1_only_that_of_the_static_code(recorded: Any) -> None:
    parts = {at: set(state.priors) for at, state in recorded.states.items() if state.priors is not None}
    assert parts == {(1, 12): {"static"}, (2, 8): {"static", "dynamics"}}
    fitted = [event for event in recorded.events if event["event"] == "priors fitted"]
    assert [(event["stage"], event["step"]) for event in fitted] == [(1, 12), (2, 8)]
    assert fitted[1].keys() == {"event", "stage", "step", "static", "dynamics"}
    assert sum(map(len, fitted[1]["dynamics"]["groups"])) <= 5
    assert fitted[1]["dynamics"]["kl_from_published"] > 0


@pytest.mark.parametrize("used", [True, False], ids=["averaged weights", "trained weights"])
def test_priors_are_those_of_the_weights_that_are_used(
    used: bool, tiny_job: Jobs, recorder: Recorders, recorded: Any
) -> None:
    job = tiny_job(**PRIORS)
    if used:
        recorded = recorder()
        job = tiny_job(**PRIORS, ema_decay=0.9)
        train_run(job, recorded)
    state = recorded.states[2, 8]
    train, validation = (
        code_priors.encode_posteriors(loaded(state), job, chosen, DistributedContext())
        for chosen in code_priors.prior_clips(stage_order(job, 2), 12)
    )
    priors, _ = code_priors.fit_priors(loaded(state), 2, train, validation, job.seed)
    assert equal(priors.to_dict(), state.priors)


def test_a_run_that_was_stopped_and_resumed_has_the_same_priors(
    tiny_job: Jobs, recorder: Recorders, recorded: Any
) -> None:
    resumed = recorder(stop_after=15)
    train_run(tiny_job(**PRIORS), resumed)
    resumed.stop_after = None
    train_run(tiny_job(**PRIORS), resumed, resume=resumed.restore())
    assert equal(resumed.states[2, 8].priors, recorded.states[2, 8].priors)


def test_priors_do_not_change_the_training(tiny_job: Jobs, recorder: Recorders, recorded: Any) -> None:
    without = recorder()
    train_run(tiny_job(**{**PRIORS, "prior_clips": 0}), without)
    assert all(state.priors is None for state in without.states.values())
    assert equal(without.states[2, 8].weights, recorded.states[2, 8].weights)


def test_codes_are_of_the_first_frames_of_training_clips_and_of_validation_clips(tiny_job: Jobs, recorded: Any) -> None:
    job = tiny_job(**PRIORS)
    order, model = stage_order(job, 2), loaded(recorded.states[2, 8])
    train, validation = code_priors.prior_clips(order, 12)
    assert len(train) == 12
    assert len(validation) == 4
    assert set(train.tolist()) <= set(order.train.tolist())
    assert set(validation.tolist()) <= set(order.validation.tolist())
    found = code_priors.encode_posteriors(model, job, train, DistributedContext())
    for row, clip in enumerate(train.tolist()):
        frames = torch.from_numpy(job.clips.frames(clip)[:4].copy()).permute(0, 3, 1, 2)[None].float() / 255
        posterior = model.sequence_model.infer(frames)
        for values, expected in zip((*found.static, *found.dynamics), (*posterior.static, *posterior.dynamics)):
            torch.testing.assert_close(values[row].float(), expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [100_001, 10**6, 10**8])
def test_of_many_clips_runs_of_neighbours_are_taken_so_that_few_shards_are_read(count: int) -> None:
    found = code_priors._drawn(count, 3000, seed=1)
    assert len(set(found.tolist())) == len(found) == 3000
    assert found.tolist() == sorted(found.tolist())
    assert 0 <= found[0] <= found[-1] < count
    runs = 1 + int((np.diff(found) > 1).sum())
    assert 64 < runs <= code_priors.RUNS
    assert 0.4 < float(found.mean()) / count < 0.6
    assert np.array_equal(found, code_priors._drawn(count, 3000, seed=1))
    assert not np.array_equal(found, code_priors._drawn(count, 3000, seed=2))
    few = code_priors._drawn(100_000, 3000, seed=1)
    assert int((np.diff(few) > 1).sum()) > 2500


@dataclass(frozen=True)
class OneOfThree(DistributedContext):
    """A rank whose sums are its own part."""

    size: int = 3

    def sum(self, values: Tensor) -> Tensor:
        return values


def test_ranks_encode_parts_that_add_up(tiny_job: Jobs, recorded: Any) -> None:
    job, model = tiny_job(**PRIORS), loaded(recorded.states[2, 8])
    clips = np.arange(7)
    every = code_priors.encode_posteriors(model, job, clips, DistributedContext())
    parts = [code_priors.encode_posteriors(model, job, clips, OneOfThree(rank)) for rank in range(3)]
    for code in range(2):
        for column in range(2):
            total = torch.stack([part[code][column] for part in parts]).sum(0)
            torch.testing.assert_close(total, every[code][column], rtol=1e-5, atol=1e-6)


def test_without_scikit_learn_a_run_ends_without_priors(
    tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_priors, "is_installed", lambda module: module != "sklearn")
    found = recorder()
    assert train_run(tiny_job(**{**PRIORS, "stages": "1", "stage1": {"steps": 6}}), found).finished
    assert found.states[1, 6].priors is None
    assert found.events[-1] == {
        "event": "priors not fitted", "stage": 1, "step": 6, "reason": "scikit-learn is not installed"
    }  # fmt: skip


def test_without_scikit_learn_the_weights_are_those_of_a_run_with_it(
    tiny_job: Jobs, recorder: Recorders, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent dimensions are found without it; and no rank waits for one that lacks it."""
    silent = torch.tensor([True, False, False, True, False])
    monkeypatch.setattr(code_priors, "silent_dimensions", lambda _: silent)
    found = [recorder(), recorder()]
    train_run(tiny_job(**PRIORS), found[0])
    monkeypatch.setattr(code_priors, "is_installed", lambda module: module != "sklearn")
    train_run(tiny_job(**PRIORS), found[1])
    assert found[0].states[2, 8].priors is not None
    assert found[1].states[2, 8].priors is None
    assert equal(found[0].states[2, 8].weights, found[1].states[2, 8].weights)
    assert not equal(found[0].states[2, 8].weights, recorded.states[2, 8].weights)


def test_one_clip_is_too_few(tiny_job: Jobs, recorder: Recorders) -> None:
    found = recorder()
    assert train_run(tiny_job(**{**PRIORS, "prior_clips": 1, "stages": "1", "stage1": {"steps": 6}}), found).finished
    assert [event.get("reason") for event in found.events] == ["it takes two training clips"]


def test_checkpoints_without_priors_are_read_as_before(recorded: Any) -> None:
    content = copy.deepcopy(recorded.states[2, 8].to_dict())
    assert loaded(TrainState.from_dict(content)).fitted_priors is not None
    del content["priors"]
    assert loaded(TrainState.from_dict(content)).fitted_priors is None


@pytest.mark.parametrize(("experts", "groups"), [(6, 1), (6, 2), (1, 1)])
def test_contrasts_are_orthonormal_and_all_that_the_softmax_sees(experts: int, groups: int) -> None:
    from tests.vdsm.tiny_models import tiny_model

    model = tiny_model(num_experts=experts, static_groups=groups)
    basis = code_priors._contrasts(model)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    latent = torch.randn(5, experts, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = latent @ basis @ basis.T
    torch.testing.assert_close(model.frame_model.static_code(seen, 10.0), model.frame_model.static_code(latent, 10.0))


def test_dimensions_below_a_tenth_of_their_noise_are_silent_but_not_all() -> None:
    deviations = torch.tensor([0.0, 0.09, 0.11, 2.0], dtype=torch.float64)
    loc = deviations * torch.tensor([[-1.0], [1.0], [-1.0], [1.0]], dtype=torch.float64) + 3
    none = torch.zeros(4, 4)
    posteriors = code_priors.CodePosteriors((none, none), (loc, torch.ones_like(loc)))
    assert code_priors.silent_dimensions(posteriors).tolist() == [True, True, False, False]
    louder = posteriors._replace(dynamics=(loc, 0.1 * torch.ones_like(loc)))
    assert code_priors.silent_dimensions(louder).tolist() == [True, False, False, False]
    untrained = posteriors._replace(dynamics=(loc, 100 * torch.ones_like(loc)))
    assert not code_priors.silent_dimensions(untrained).any()


def test_a_dimension_that_tells_windows_apart_only_later_in_a_clip_is_not_silent(
    tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[code_priors.CodePosteriors] = []
    answers = iter([torch.tensor([True, True, False, False, False]), torch.tensor([True, False, True, False, False])])

    def silent(train: code_priors.CodePosteriors) -> Tensor:
        seen.append(train)
        return next(answers)

    monkeypatch.setattr(code_priors, "silent_dimensions", silent)
    job, found = tiny_job(**PRIORS), recorder()
    assert max(job.clips.clip_frames) > job.training.stage2.clip_frames
    train_run(job, found)
    rows = found.states[2, 8].weights["sequence_model.dynamics_encoder.loc.weight"]
    assert (rows == 0).all(1).tolist() == [True, False, False, False, False]
    order, model = stage_order(job, 2), loaded(found.states[2, 8])
    clips = code_priors.prior_clips(order, 12)[0]
    at_start, later = (
        code_priors.encode_posteriors(model, job, clips, DistributedContext(), starts).dynamics[0]
        for starts in (None, order.window_starts(clips))
    )
    for posteriors, expected in zip(seen, (at_start, later), strict=True):
        torch.testing.assert_close(posteriors.dynamics[0][:, 1:], expected[:, 1:])
    assert not torch.equal(at_start, later)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_silent_dimensions_of_the_finished_model_are_those_of_no_clip(
    ema_decay: float, tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are as they were, in the averaged weights as well, and so are the frames but for what is silent."""
    job, silent = tiny_job(**PRIORS, ema_decay=ema_decay), torch.tensor([True, False, True, False, False])
    assert job.model.dynamics_size == len(silent)
    loud, quiet = recorder(), recorder()
    monkeypatch.setattr(code_priors, "silent_dimensions", lambda _: torch.zeros(5, dtype=torch.bool))
    train_run(job, loud)
    monkeypatch.setattr(code_priors, "silent_dimensions", lambda _: silent)
    train_run(job, quiet)
    for weights in ("weights", "ema") if ema_decay else ("weights",):
        before, after = (getattr(found.states[2, 8], weights) for found in (loud, quiet))
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {f"sequence_model.dynamics_encoder.loc.{part}" for part in ("weight", "bias")}
        row = "sequence_model.dynamics_encoder.loc.weight"
        assert not after[row][silent].any()
        assert torch.equal(after[row][~silent], before[row][~silent])
    clips = code_priors.prior_clips(stage_order(job, 2), 12)[0]
    before, after = (
        code_priors.encode_posteriors(loaded(found.states[2, 8]), job, clips, DistributedContext()).dynamics[0]
        for found in (loud, quiet)
    )
    assert torch.equal(after[:, ~silent], before[:, ~silent])
    assert (before[:, silent].std(0) > 0).all()
    torch.testing.assert_close(after[:, silent], before[:, silent].mean(0).expand(len(clips), -1))
