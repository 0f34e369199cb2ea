"""Latents of the training clips that are inferred once: the same numbers, without the image encoder in the steps."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.job import Job, stage_order
from pipeline.training.latents import bytes_needed, infer_latents
from pipeline.training.loop import train_run
from pipeline.training.plan import make_plan
from pipeline.training.samples_config import AugmentationConfig
from pipeline.training.stage import StageRun
from pipeline.training.state import TrainState
from vdsm.disentangler import Disentangler
from vdsm.encoder import ImageEncoder
from vdsm.sequence import SequenceModel, StoredLatents

Jobs = Callable[..., Job]
Recorders = Callable[..., Any]
ONE = {"num_workers": 1, "picture_interval": 0}


class Silent:
    def log(self, record: dict[str, Any]) -> None:
        """Ignore what is logged."""


def run_of(job: Job) -> StageRun:
    torch.manual_seed(0)
    run = StageRun(job, 2, Disentangler(job.model), Silent(), DistributedContext())  # type: ignore[arg-type]
    run.module.train()
    return run


def gradients(run: StageRun, step: int) -> dict[str, Tensor]:
    with run.batches(step) as batches:
        run.stepper.gradients(step, next(iter(batches)))
    return {name: p.grad for name, p in run.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage2", [{}, {"rollout_frames": 8, "num_decoded_frames": 2}], ids=["windows", "rollouts"])
def test_gradients_are_those_of_frames_encoded_in_the_step(tiny_job: Jobs, stage2: dict[str, Any]) -> None:
    # Without the doubles, which have other static codes: a clip keeps its own for the whole stage.
    training = tiny_job(**ONE, stage2=stage2).training
    annealing = replace(training.stage2.annealing, dynamics_consistency=0.0)
    training = replace(training, stage2=replace(training.stage2, annealing=annealing))
    rooms = [replace(tiny_job(), training=replace(training, latent_memory_gb=room)) for room in (0.0, 0.1)]
    anew, stored = map(run_of, rooms)
    for step in (0, 9):
        expected, found = gradients(anew, step), gradients(stored, step)
        assert len(expected) > 10
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-8, msg=name)


def test_each_clip_has_the_latents_of_its_frames_and_a_double_with_a_static_code_of_its_own(tiny_job: Jobs) -> None:
    job = tiny_job(**ONE, latent_memory_gb=0.1)
    run = run_of(job)
    model: Any = run.module
    windows = run.order.at(3)
    stored = run.stepper.latents.of(windows, 4, torch.device("cpu"))  # type: ignore[union-attr]
    temperature = job.training.stage2.annealing.temperature.end
    for row, (clip, start) in enumerate(zip(windows.clips.tolist(), windows.starts.tolist(), strict=True)):
        frames = torch.from_numpy(job.clips.frames(clip)).permute(0, 3, 1, 2)[None] / 255
        with torch.no_grad():
            latents = model.frame_model.encoder(frames)
            seed = derive_seed(job.seed, "double", job.clips.keys[clip])
            noise = torch.randn(1, job.model.num_experts, generator=torch.Generator().manual_seed(seed))
            static = torch.softmax(temperature * model.frame_model.static_prior_scale * noise, dim=-1)
            picture = torch.sigmoid(model.frame_model.decoder(latents.pose_loc, static))
            double = model.frame_model.encoder(picture).pose_loc
        for name, value in stored.latents._asdict().items():
            torch.testing.assert_close(value[row], getattr(latents, name)[0, start : start + 4], msg=name)
        torch.testing.assert_close(stored.double[row], double[0, start : start + 4])


def test_the_doubles_are_compared_with_their_clips(tiny_job: Jobs) -> None:
    """The regulariser of a step is that of the stored doubles, and so depends on them."""
    run = run_of(tiny_job(**ONE, latent_memory_gb=0.1))
    model: Any = run.module.eval()
    windows = run.order.at(0)
    stored = run.stepper.latents.of(windows, 4, torch.device("cpu"))  # type: ignore[union-attr]
    frames = torch.rand(4, 4, 3, 32, 32)
    noise = model.draw_noise(4, 4, torch.Generator().manual_seed(0))
    weights = run.stepper.loss_weights(0)

    def consistency(stored: StoredLatents) -> float:
        return float(model(frames, noise, weights, None, None, stored).dynamics_consistency)

    with torch.no_grad():
        assert consistency(stored._replace(double=stored.latents.pose_loc)) == 0
        assert consistency(stored) > 0


class Rank(DistributedContext):
    """One of three ranks, whose part is not yet added to those of the others."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def rows(self, count: int, together: int = 1) -> slice:
        """Return the part of this rank."""
        return slice(self.number * count // 3, (self.number + 1) * count // 3)


def test_the_latents_do_not_depend_on_how_the_clips_are_shared_out(
    tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bits: clips that are encoded together are so at any number of workers, and a run may continue with more."""
    monkeypatch.setattr("pipeline.training.latents.FRAMES", 40)  # five clips
    run = run_of(tiny_job(**ONE))
    module, train = run.module, run.order.train
    assert isinstance(module, SequenceModel)
    whole = infer_latents(module, run.job, train, DistributedContext())._values
    parts = [infer_latents(module, run.job, train, Rank(number))._values for number in range(3)]
    assert len({int((part != 0).any(1).sum()) for part in parts}) > 1 or len(train) % 15 == 0
    assert all((part != 0).any() for part in parts)
    assert torch.equal(whole, torch.stack(parts).sum(0))


class Copying(DistributedContext):
    """The only rank, whose sums are copies, and which remembers how large they were."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "summed", [])

    def sum(self, values: Tensor) -> Tensor:
        self.summed.append(len(values))  # type: ignore[attr-defined]
        return values.clone()


def test_the_parts_of_the_ranks_are_added_piece_by_piece(tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two ranks do not need twice the memory that one needs."""
    run = run_of(tiny_job(**ONE))
    assert isinstance(run.module, SequenceModel)
    whole = infer_latents(run.module, run.job, run.order.train, DistributedContext())._values
    monkeypatch.setattr("pipeline.training.latents.SUMMED_ROWS", 7)
    rank = Copying()
    assert torch.equal(infer_latents(run.module, run.job, run.order.train, rank)._values, whole)
    assert max(rank.summed) == 7  # type: ignore[attr-defined]
    assert sum(rank.summed) == len(whole)  # type: ignore[attr-defined]


def test_the_plan_counts_the_memory_of_stored_latents(tiny_job: Jobs) -> None:
    def memory(**training: Any) -> list[int]:
        return [plan.memory_bytes for plan in make_plan(tiny_job(**ONE, **training))]

    job = tiny_job(**ONE, latent_memory_gb=1.0)
    needed = bytes_needed(job, stage_order(job, 2).train)
    first, second = memory()
    assert memory(latent_memory_gb=1.0) == [first, second + needed]
    assert memory(latent_memory_gb=0.9e-9 * needed) == [first, second]  # there is no room


def test_long_clips_are_encoded_in_parts(tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tiny_job(**ONE))
    module, windows = run.module, run.order.at(0)
    assert isinstance(module, SequenceModel)
    whole = infer_latents(module, run.job, run.order.train, DistributedContext())
    monkeypatch.setattr("pipeline.training.latents.FRAMES", 3)
    parts = infer_latents(module, run.job, run.order.train, DistributedContext())
    first, second = (store.of(windows, 4, torch.device("cpu")) for store in (whole, parts))
    torch.testing.assert_close(first.latents.pose_loc, second.latents.pose_loc)
    torch.testing.assert_close(first.double, second.double)


@pytest.mark.slow
def test_a_run_that_was_stopped_in_stage_2_ends_with_the_same_weights_bit_for_bit(
    tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(**ONE, latent_memory_gb=0.1, stage1={"steps": 4})
    encoded, encode = [], ImageEncoder.forward

    def watched(self: ImageEncoder, frames: Tensor) -> Any:
        encoded.append(frames.shape[:2])
        return encode(self, frames)

    whole, stopped, resumed = recorder(), recorder(stop_after=11), recorder()
    train_run(job, whole)
    train_run(job, stopped)
    state: TrainState = stopped.states[2, 7]
    monkeypatch.setattr(ImageEncoder, "forward", watched)
    train_run(job, resumed, resume=state)
    weights, again = whole.states[2, 16].weights, resumed.states[2, 16].weights
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert [event["event"] for event in whole.events] == ["inferring latents"]
    # All frames of each training clip, and those of its double; after that, only the two validations encode.
    order = stage_order(job, 2)
    at_start, later = ([clips for clips, frames in encoded if frames == length] for length in (8, 4))
    assert sum(at_start) == 2 * len(order.train)
    # Sixteen clips are 128 frames.
    assert len(at_start) == 2 * math.ceil(len(order.train) / 16)
    assert len(later) == 2 * len(order.validation_batches())


def test_clips_that_do_not_fit_are_encoded_in_every_step(tiny_job: Jobs, recorder: Recorders) -> None:
    room = 1e-6
    found, usual = recorder(stop_after=6), recorder(stop_after=6)
    train_run(tiny_job(**ONE, stage1={"steps": 2}, latent_memory_gb=room), found)
    train_run(tiny_job(**ONE, stage1={"steps": 2}), usual)
    (event,) = found.events
    assert event["event"] == "latents not stored"
    assert event["needed_gb"] > event["latent_memory_gb"] == room
    first, second = (recorded.states[2, 4].weights for recorded in (found, usual))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_augmentation_and_room_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent_memory_gb is 1.0, but augmentation changes the frames"):
        TrainingConfig(latent_memory_gb=1.0, augmentation=AugmentationConfig(flip=True))
    with pytest.raises(ValueError, match=r"latent_memory_gb is -1; it must not be negative"):
        TrainingConfig(latent_memory_gb=-1)
