"""The training without Ray: it learns, resumes bit for bit, and reports what went wrong."""

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.batches import Batch
from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.optimiser import learning_rate
from pipeline.training.stage import StageRun
from pipeline.training.stage_config import StageConfig
from pipeline.training.state import TrainState
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.annealing import un_annealed, weights_at
from vdsm.config import AnnealingConfig
from vdsm.decoder import Decoder
from vdsm.disentangler import Disentangler
from vdsm.row_streams import RowStreams

pytestmark = pytest.mark.slow

Recorders = Callable[..., Any]
Jobs = Callable[..., Job]


def same(here: dict[str, Any], there: dict[str, Any]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def metric(recorder: Any, kind: str, name: str, stage: int) -> list[float]:
    return [record[name] for record in recorder.records if record["kind"] == kind and record["stage"] == stage]


def test_the_loss_goes_down_in_both_stages(tiny_job: Jobs, recorder: Recorders) -> None:
    flat = {"learning_rate": 0.01, "warmup_steps": 0}
    job = tiny_job(stage1={"steps": 60, **flat}, stage2={"steps": 60, **flat}, validation_interval=1000)
    recorded = recorder()
    assert train_run(job, recorded) == (2, 60, True)
    reconstruction = metric(recorded, "train", "reconstruction", 1)
    assert reconstruction[-1] < 0.75 * reconstruction[0]
    second = metric(recorded, "train", "loss", 2)
    assert second[-1] < second[0]
    # The ELBO on held-out identities improved as well.
    assert metric(recorded, "validation", "elbo", 1)[0] > -0.75 * reconstruction[0]


@pytest.fixture(scope="module")
def undisturbed(tiny_job: Jobs, recorder: Recorders) -> Any:
    """Return what the tiny training reports when it is not disturbed."""
    recorded = recorder()
    assert train_run(tiny_job(), recorded) == (2, 16, True)
    return recorded


def test_a_run_that_was_resumed_three_times_ends_with_the_same_weights_bit_for_bit(
    tiny_job: Jobs, recorder: Recorders, undisturbed: Any, tmp_path: Path
) -> None:
    state, done = None, 0
    for stop_after in (7, 24, 31):
        stopped = recorder(stop_after=stop_after - done)
        outcome = train_run(tiny_job(), stopped, resume=state)
        last = (2, stop_after - 24) if stop_after > 24 else (1, stop_after)
        if stop_after != 24:  # a run does not stop at the end of a stage: the next one starts
            assert outcome == (*last, False)
        checkpoint.save(stopped.states[last].to_dict(), tmp_path / "state.pt")
        state, done = TrainState.from_dict(checkpoint.load(tmp_path / "state.pt")), stop_after
    resumed = recorder()
    assert train_run(tiny_job(), resumed, resume=state) == (2, 16, True)
    assert same(undisturbed.states[2, 16].weights, resumed.states[2, 16].weights)


def test_another_seed_gives_other_weights(tiny_job: Jobs, recorder: Recorders, undisturbed: Any) -> None:
    other = recorder(stop_after=10)
    train_run(replace(tiny_job(), seed=4), other)
    assert not same(undisturbed.states[1, 10].weights, other.states[1, 10].weights)


def test_a_finished_run_is_not_trained_further(tiny_job: Jobs, recorder: Recorders, undisturbed: Any) -> None:
    again = recorder()
    assert train_run(tiny_job(), again, resume=undisturbed.states[2, 16]) == (2, 16, True)
    assert not again.records
    assert not again.states


def test_stages_in_two_runs_equal_both_in_one(tiny_job: Jobs, recorder: Recorders, undisturbed: Any) -> None:
    first, second = recorder(), recorder()
    assert train_run(tiny_job(stages="1"), first) == (1, 24, True)
    train_run(tiny_job(stages="2"), second, resume=first.states[1, 24])
    assert same(undisturbed.states[2, 16].weights, second.states[2, 16].weights)


def test_stage_2_alone_needs_a_finished_stage_1(tiny_job: Jobs, recorder: Recorders) -> None:
    early = recorder(stop_after=5)
    train_run(tiny_job(), early)
    for resume in (None, early.states[1, 5]):
        with pytest.raises(ValueError, match="no finished stage 1"):
            train_run(tiny_job(stages="2"), recorder(), resume=resume)


def test_stage_2_keeps_the_image_encoder_and_the_decoder(undisturbed: Any) -> None:
    before, after = undisturbed.states[1, 24].weights, undisturbed.states[2, 16].weights
    moved = {".".join(name.split(".")[1:3]) for name in before if not torch.equal(before[name], after[name])}
    assert not moved & {"frame_model.encoder", "frame_model.decoder"}
    assert {"frame_model.static_loc", "transition.step", "combiner.loc"} <= moved


@torch.no_grad()
def test_validation_is_the_mean_elbo_of_the_held_out_clips(tiny_job: Jobs, tiny_clips: ClipDataset) -> None:
    job = tiny_job(stages="1")
    model = Disentangler(job.model)
    run = StageRun(job, 1, model, None, DistributedContext())  # type: ignore[arg-type]
    weights = run.stepper.loss_weights(5)
    measured = run.validate(weights)
    elbos = []
    for number, batch in enumerate(run.order.validation_batches()):
        streams = RowStreams(derive_seed(3, "validation noise", number), range(len(batch.clips)))
        noise = model.frame_model.draw_noise(len(batch.clips), 4, streams)
        for row, clip in enumerate(batch.clips):
            frames = tiny_clips.frames(clip)[batch.starts[row] :][:4] / np.float32(255)
            one = type(noise)(*(tensor[row : row + 1] for tensor in noise))
            terms = model.frame_model(
                torch.from_numpy(frames).permute(0, 3, 1, 2)[None], one, un_annealed(weights.temperature)
            )
            elbos.append(-terms.loss.item())
    assert len(elbos) == len(run.order.validation) > 4
    assert measured["elbo"] == pytest.approx(sum(elbos) / len(elbos), rel=1e-5)


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_validation_fetches_its_shards_ahead_where_they_have_to_be_fetched(
    is_remote: bool, tiny_job: Jobs, tiny_clips: ClipDataset
) -> None:
    prepared: list[int] = []
    is_prepared = {shard: threading.Event() for shard in tiny_clips.clip_shards}

    class Watched(ClipDataset):
        def __init__(self) -> None:
            self.__setstate__(tiny_clips.__getstate__())

        def prepare(self, shard: int) -> bool:
            prepared.append(shard)
            is_prepared[shard].set()
            return True

        def frames(self, index: int) -> Any:
            assert not is_remote or is_prepared[self.clip_shards[index]].wait(60)
            return super().frames(index)

    job = replace(tiny_job(stages="1", clips=Watched(), validation_clips=3), is_remote=is_remote)
    run = StageRun(job, 1, Disentangler(job.model), None, DistributedContext())  # type: ignore[arg-type]
    run.validate(run.stepper.loss_weights(5))
    read = np.unique(np.array(tiny_clips.clip_shards)[run.order.validated()])
    assert len(run.order.validated()) == 3 < len(run.order.validation)
    assert sorted(prepared) == (read.tolist() if is_remote else [])


def test_a_loss_that_is_not_finite_names_term_step_and_clips(
    tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(stages="1", max_rollbacks=0)
    draw = Disentangler(job.model).frame_model.draw_noise

    def poisoned(self: Any, *size: Any) -> Any:
        noise = draw(*size)
        poisoned.calls += 1  # type: ignore[attr-defined]
        if poisoned.calls == 6:  # type: ignore[attr-defined]
            noise.pose[2] = math.nan
        return noise

    poisoned.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr("vdsm.frames.FrameModel.draw_noise", poisoned)
    recorded = recorder()
    with pytest.raises(DivergenceError) as caught:
        train_run(job, recorded)
    assert str(caught.value).startswith("stage 1, step 6: reconstruction is not finite on clips ")
    assert [event["event"] for event in recorded.events] == ["divergence"]
    assert recorded.events[0]["clips"] == caught.value.clips
    step = StageRun(job, 1, Disentangler(job.model), recorded, DistributedContext()).order.at(5)
    assert all(job.clips.keys[clip] in str(caught.value) for clip in step.clips)


def test_a_learning_rate_that_is_far_too_high_diverges(tiny_job: Jobs, recorder: Recorders) -> None:
    recorded = recorder()
    with pytest.raises(DivergenceError, match=r"stage 1, step \d+: .* lower stage1.learning_rate"):
        train_run(tiny_job(stages="1", stage1={"learning_rate": 1e30, "warmup_steps": 0}), recorded)
    assert [event["event"] for event in recorded.events] == ["divergence", "rollback"] * 3 + ["divergence"]
    assert [event["rate_factor"] for event in recorded.events if event["event"] == "rollback"] == [0.5, 0.25, 0.125]


def test_the_records_hold_every_metric_as_plain_values(tiny_job: Jobs, undisturbed: Any) -> None:
    job = tiny_job()
    train = [record for record in undisturbed.records if record["kind"] == "train"]
    assert [record["overall_step"] for record in train] == list(range(4, 41, 4))
    weights = weights_at(job.training.stage1.annealing, 3 / 23, 3 * 32 * 32)
    assert train[0]["weight_pose"] == weights.pose
    assert train[0]["temperature"] == weights.temperature
    plain = [record for record in undisturbed.records if record["kind"] != "images"]
    for record in json.loads(json.dumps(plain)):
        assert all(math.isfinite(value) for value in record.values() if isinstance(value, float))
    assert all(0 <= record["data_wait_share"] <= 1 and record["clips_per_s"] > 0 for record in train)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_decodes_num_decoded_frames_and_validation_all(
    tiny_job: Jobs, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(**{f"stage{stage}": {"pairing": "none", "num_decoded_frames": 3, "annealing": AnnealingConfig()}})
    run = StageRun(job, 1 if stage == 1 else 2, Disentangler(job.model), None, DistributedContext())  # type: ignore[arg-type]
    sizes, decode = [], Decoder.forward

    def watched(self: Decoder, pose: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        sizes.append(pose.shape[1])
        return decode(self, pose, static)

    monkeypatch.setattr(Decoder, "forward", watched)
    size = job.model.frame_size
    frames = torch.zeros(4, 4, size, size, 3, dtype=torch.uint8)
    run.stepper.gradients(0, Batch(run.order.at(0), frames))
    assert sizes == [3]
    run.validate(run.stepper.loss_weights(0))
    assert set(sizes[1:]) == {4}


@pytest.mark.parametrize("wrong", [0, 9])
def test_more_frames_than_there_are_cannot_be_decoded(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"num_decoded_frames is {wrong}; it must be from 1 to 8, the frames of a seq"):
        StageConfig(num_decoded_frames=wrong)
    StageConfig(num_decoded_frames=9, pairing="identity")  # sixteen frames of two clips


def test_checkpoints_are_saved_at_their_interval_and_at_the_end_of_each_stage(undisturbed: Any) -> None:
    regular = [(1, 10), (1, 20), (1, 24), (2, 10), (2, 16)]
    # and where the validation, every 12 steps, is the best so far
    measured = [(record["stage"], record["step"]) for record in undisturbed.records if record["kind"] == "validation"]
    assert measured == [(1, 12), (1, 24), (2, 12), (2, 16)]
    elbos = metric(undisturbed, "validation", "elbo", 1) + metric(undisturbed, "validation", "elbo", 2)
    best = [measured[0], measured[2]] + [m for m, a, b in zip(measured[1::2], elbos[1::2], elbos[::2]) if a > b]
    assert sorted(undisturbed.states) == sorted({*regular, *best})


def test_a_checkpoint_is_saved_immediately_before_a_preemption_and_when_one_is_due(
    tiny_job: Jobs, recorder: Recorders
) -> None:
    recorded = recorder(preempted_after=7, due_after=4)
    train_run(tiny_job(stages="1", stage1={"steps": 9}, picture_interval=0), recorded)
    assert sorted(recorded.states) == [(1, 4), (1, 7), (1, 9)]
    assert recorded.events == [{"event": "preemption notice", "stage": 1, "step": 7}]


def test_the_learning_rate_warms_up_and_decays_along_a_cosine() -> None:
    config = StageConfig(steps=109, warmup_steps=10, learning_rate=0.5, final_rate_fraction=0.1)
    rates = [learning_rate(config, step) for step in range(109)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert rates[10] == 0.5
    assert rates[59] == pytest.approx(0.275)
    assert rates[108] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)
