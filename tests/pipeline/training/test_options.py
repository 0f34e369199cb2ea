"""The options of the loop: with each of them, a resumed run equals one that was not stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.runs.checkpoints import copy_to_cpu
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.order import Windows
from pipeline.training.prefetch import PrefetchedBatches, StalledReaderError
from pipeline.training.samples_config import AugmentationConfig
from pipeline.training.state import TrainState
from pipeline.training.validation import validate
from vdsm import checkpoint
from vdsm.config import STAGE_2_ANNEALING, AnnealingConfig

pytestmark = pytest.mark.slow

Recorders = Callable[..., Any]
Jobs = Callable[..., Job]

CHANGED = {"augmentation": AugmentationConfig(colour=0.3, crop=0.1, flip=0.5)}
TWICE = {"stage1": {"accumulation": 2}, "stage2": {"accumulation": 2}}
ROLLOUTS = {"stage2": {"accumulation": 2, "rollout_frames": 7, "num_decoded_frames": 5}}
OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    # On a CPU only stage 1 can run in fp16.
    "fp16": {"precision": "fp16", "use_gpu": True, "stages": "1"},
    "accumulation": TWICE,
    "augmentation": CHANGED,
    "average": {"ema_decay": 0.8},
    "average kept, not used": {"ema_decay": 0.8, "ema_used": False},
    "best": {"stage2_start": "best"},
    "rollouts": ROLLOUTS,
    "all": {"precision": "bf16", "ema_decay": 0.8, "stage2_start": "best", **TWICE, **ROLLOUTS, **CHANGED},
}
SHORTLY = ("fp16", "average kept, not used", "all")


def short(**options: Any) -> dict[str, Any]:
    """Return options with few steps, validations and checkpoints among them."""
    stages = {f"stage{number}": {"steps": steps} | options.get(f"stage{number}", {}) for number, steps in STEPS}
    return {"picture_interval": 0, "validation_interval": 4, "checkpoint_interval": 4} | options | stages


STEPS = ((1, 10), (2, 8))


def same(here: dict[str, Any], there: dict[str, Any]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize(
    "option",
    # Those that are a part of "all" too take as long again.
    [pytest.param(name, marks=[] if name in SHORTLY else pytest.mark.long) for name in OPTIONS],
)
def test_a_resumed_run_ends_with_the_same_state_bit_for_bit(
    tiny_job: Jobs, recorder: Recorders, tmp_path: Path, option: str
) -> None:
    job = tiny_job(**short(**OPTIONS[option]))
    uninterrupted = recorder()
    first, second = job.training.stage1.steps, job.training.stage2.steps
    end = (1, first) if job.training.stages == "1" else (2, second)
    assert train_run(job, uninterrupted) == (*end, True)
    middle = second // 2 + 1
    resumed = recorder()
    state = None
    for stop_after, position in ((7, (1, 7)), (first + middle - 7, (2, middle)))[: end[0]]:
        resumed.steps, resumed.stop_after = 0, stop_after
        train_run(job, resumed, resume=state)
        assert max(resumed.states) == position
        checkpoint.save(resumed.states.pop(position).to_dict(), tmp_path / "state.pt")
        state = TrainState.from_dict(checkpoint.load(tmp_path / "state.pt"))
    resumed.stop_after = None
    train_run(job, resumed, resume=state)
    one, two = uninterrupted.states[end], resumed.states[end]
    assert same(one.weights, two.weights)
    assert same(one.ema or {}, two.ema or {})
    assert one.loss_scale == two.loss_scale
    assert one.best_validation == two.best_validation


@pytest.mark.long
def test_a_compiled_run_ends_near_the_plain_one_and_resumes_bit_for_bit(tiny_job: Jobs, recorder: Recorders) -> None:
    plain, uninterrupted, stopped, resumed = recorder(), recorder(), recorder(stop_after=2), recorder()
    few: dict[str, Any] = {"stages": "1", "picture_interval": 0, "log_interval": 1, "stage1": {"steps": 4}}
    train_run(tiny_job(**few), plain)
    job = tiny_job(compile=True, **few)
    train_run(job, uninterrupted)
    train_run(job, stopped)
    train_run(job, resumed, resume=stopped.states[1, 2])
    assert same(uninterrupted.states[1, 4].weights, resumed.states[1, 4].weights)
    losses = [[r["loss"] for r in one.records if r["kind"] == "train"] for one in (plain, uninterrupted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert uninterrupted.states[1, 4].weights.keys() == plain.states[1, 4].weights.keys()


def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(tiny_job: Jobs, recorder: Recorders) -> None:
    # Without dropout, whose masks are drawn for a whole forward pass.
    recorded = []
    for changes in ({}, TWICE, {"stage1": {"accumulation": 3}, "stage2": {"accumulation": 3}}):
        one = recorder()
        train_run(tiny_job(log_interval=1, num_workers=1, model={"rnn_dropout": 0.0}, **short(**changes)), one)
        recorded.append([record["loss"] for record in one.records if record["kind"] == "train"])
    assert len(recorded[0]) == 18
    assert recorded[1] == pytest.approx(recorded[0], rel=1e-4)
    assert recorded[2] == pytest.approx(recorded[0], rel=1e-4)  # 4 clips in parts of 1, 1 and 2


def test_lower_precision_stays_near_fp32_and_the_weights_stay_fp32(tiny_job: Jobs, recorder: Recorders) -> None:
    recorded = {}
    for precision in ("fp32", "bf16", "fp16"):
        one = recorder()
        options = {"precision": precision, "use_gpu": precision == "fp16", "stage1": {"steps": 12}, "log_interval": 2}
        train_run(tiny_job(stages="1", picture_interval=0, **options), one)
        recorded[precision] = [record["loss"] for record in one.records if record["kind"] == "train"]
        assert {value.dtype for value in one.states[1, 12].weights.values()} == {torch.float32}
    assert recorded["bf16"] == pytest.approx(recorded["fp32"], rel=0.02)
    assert recorded["fp16"] == pytest.approx(recorded["fp32"], rel=0.005)
    assert recorded["bf16"] != recorded["fp32"] != recorded["fp16"]


def test_the_ema_follows_the_weights(tiny_job: Jobs, recorder: Recorders) -> None:
    recorded = recorder()
    train_run(
        tiny_job(stages="1", picture_interval=0, checkpoint_interval=1, ema_decay=0.75, stage1={"steps": 12}), recorded
    )
    name = "sequence_model.frame_model.static_loc.weight"
    average = None
    for step in range(1, 13):
        weights = recorded.states[1, step].weights[name].double()
        if average is not None:
            average = 0.75 * average + 0.25 * weights
            torch.testing.assert_close(recorded.states[1, step].ema[name].double(), average, rtol=1e-5, atol=1e-7)
        else:
            average = recorded.states[1, 1].ema[name].double()
    assert not same(recorded.states[1, 12].ema, recorded.states[1, 12].weights)


def test_stage_2_and_users_of_the_checkpoint_get_the_ema(tiny_job: Jobs, recorder: Recorders, tmp_path: Path) -> None:
    for used in (True, False):
        recorded = recorder()
        train_run(tiny_job(**short(ema_decay=0.9, ema_used=used)), recorded)
        end, start = recorded.states[2, 8], recorded.states[1, 10]
        frozen = "sequence_model.frame_model.decoder.layers.0.kernels"
        assert torch.equal(end.weights[frozen], (start.ema if used else start.weights)[frozen])
        checkpoint.save(end.to_dict(), tmp_path / "state.pt")
        model = checkpoint.load_disentangler(tmp_path / "state.pt").state_dict()
        assert same(dict(model), end.ema if used else end.weights)


def test_stage_2_starts_from_the_selected_weights(tiny_job: Jobs, recorder: Recorders) -> None:
    frozen = "sequence_model.frame_model.decoder.layers.0.kernels"
    # A learning rate that rises until the end spoils the last weights; the regularisers would then blow up.
    stage1 = {"warmup_steps": 24, "learning_rate": 0.2, "annealing": AnnealingConfig()}
    stage2 = {"steps": 4, "annealing": STAGE_2_ANNEALING}
    changes = {"picture_interval": 0, "validation_interval": 2, "stage1": stage1, "stage2": stage2}
    first = recorder()
    train_run(tiny_job(stages="1", **changes), first)
    measured = {r["step"]: r["elbo"] for r in first.records if r["kind"] == "validation"}
    for start in ("last", "best"):
        recorded = recorder(states=dict(first.states))
        train_run(tiny_job(stages="2", stage2_start=start, **changes), recorded, resume=first.states[1, 24])
        step, elbo = recorded.states[2, 4].best_validation[1]
        assert elbo == max(measured.values()) == measured[step]
        assert step < 24
        selected = first.states[1, step if start == "best" else 24].weights[frozen]
        assert torch.equal(recorded.states[2, 4].weights[frozen], selected)


@pytest.mark.parametrize(
    ("fails_at", "restored"),
    [
        (7, [(1, 5), (1, 5)]),
        (3, [(1, 0), (1, 0)]),
        (6, [(1, 5), (1, 0)]),  # a checkpoint whose next step diverges is not used twice
        (15, [(1, 12), (1, 12)]),
        (13, [(1, 12), (1, 10)]),
    ],
)
def test_a_loss_that_is_not_finite_rolls_the_run_back_with_a_lower_learning_rate(
    tiny_job: Jobs,
    recorder: Recorders,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    restored: list[tuple[int, int]],
) -> None:
    from pipeline.training.step import Stepper

    loss_weights = Stepper.loss_weights

    def poisoned(self: Any, step: int) -> Any:
        weights = loss_weights(self, step)
        overall = step + 1 + (12 if self.stage == 2 else 0)
        # Until the learning rate is low enough.
        return weights._replace(pose=float("nan")) if overall == fails_at and self.lr_scale > 0.3 else weights

    monkeypatch.setattr(Stepper, "loss_weights", poisoned)
    recorded = recorder()
    steps = {"checkpoint_interval": 5, "stage1": {"steps": 12}, "stage2": {"steps": 8}}
    changes = {"picture_interval": 0, "validation_interval": 1000, "rollback_rate": 0.5, **steps}
    assert train_run(tiny_job(**changes), recorded) == (2, 8, True)
    assert [event["event"] for event in recorded.events] == ["divergence", "rollback"] * 2
    position = (1, fails_at) if fails_at <= 12 else (2, fails_at - 12)
    assert [(e["stage"], e["step"]) for e in recorded.events] == [
        position,
        restored[0],
        position,
        restored[1],
    ]
    assert recorded.events[0]["clips"]
    rates = {r["overall_step"]: r["learning_rate"] for r in recorded.records if r["kind"] == "train"}
    assert rates[20] == 0.25 * 1e-3
    assert recorded.states[2, 8].lr_scale == 0.25
    # A resumed run restores it.
    resumed = recorder()
    last = max(at for at in recorded.states if at < (2, 8))
    train_run(tiny_job(**changes), resumed, resume=recorded.states[last])
    assert same(resumed.states[2, 8].weights, recorded.states[2, 8].weights)


def test_a_copy_of_a_state_shares_nothing_with_it() -> None:
    state = {"a": torch.zeros(2), "b": [{"c": torch.ones(2)}], "d": 3}
    copied = copy_to_cpu(state)
    state["a"] += 1
    state["b"][0]["c"] += 1
    assert copied["a"].tolist() == [0, 0]
    assert copied["b"][0]["c"].tolist() == [1, 1]


def test_a_reader_that_hangs_is_an_error_that_names_the_clips() -> None:
    import threading

    released = threading.Event()

    class Hanging:
        keys, identities, clip_frames, clip_shards = ["one"], ["someone"], [4], [0]

        def frames(self, index: int) -> Any:
            released.wait(30)
            return np.zeros((4, 2, 2, 3), dtype=np.uint8)

    windows = Windows(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), None, None)
    reading = PrefetchedBatches(Hanging(), [windows], 4, stall_s=0.3)  # type: ignore[arg-type]
    stalled = r"no batch within 0.3 s .* while reading clips one"
    with reading, pytest.raises(StalledReaderError, match=stalled):
        list(reading)
    with pytest.raises(StalledReaderError, match=stalled):
        validate(
            torch.nn.Identity(),  # type: ignore[arg-type]
            Hanging(),  # type: ignore[arg-type]
            [windows],
            window=4,
            seed=0,
            temperature=1.0,
            world=DistributedContext(),
            stall_s=0.3,
        )
    released.set()
