"""What a run will do, computed and checked before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from cluster.errors import UserError
from cluster.memory import memory_bytes
from pipeline.training.batches import check_frames
from pipeline.training.config import TrainingConfig
from pipeline.training.job import Job, stage_order
from pipeline.training.latents import bytes_needed, have_room
from pipeline.training.order import GlobalOrder
from vdsm.config import ModelConfig

FLOAT_BYTES = 4


@dataclass(frozen=True)
class StagePlan:
    """The size of one stage."""

    stage: int
    steps: int
    batch_clips: int
    sequence_frames: int
    """Frames per sample; two windows for paired samples."""
    num_decoded_frames: int
    """Number of them that a step decodes."""
    train_clips: int | None
    """None if the dataset does not exist yet; likewise below."""
    validation_clips: int | None
    parameters: int
    """Trained parameters."""
    memory_bytes: int
    """Estimate per worker: weights, gradients, Adam's moments, activations kept for the backward pass, and the latents
    that are stored, if the data is known."""

    @property
    def epochs(self) -> float | None:
        """Return the number of times that each training clip is seen."""
        return None if self.train_clips is None else self.steps * self.batch_clips / self.train_clips

    def __str__(self) -> str:
        work = f"{self.steps:,} steps of {self.batch_clips} clips x {self.sequence_frames} frames"
        if self.num_decoded_frames < self.sequence_frames:
            work += f", {self.num_decoded_frames} of them decoded"
        if self.train_clips is not None:
            data = f"{self.epochs:.1f} epochs of {self.train_clips:,} clips; {self.validation_clips:,} for validation"
            work += f" ({data})"
        memory = f"about {self.memory_bytes / 1e9:.2f} GB per worker"
        return f"stage {self.stage}: {work}, {self.parameters:,} parameters to train, {memory}"


def make_plan(job: Job) -> list[StagePlan]:
    """Return the plans of the stages that `job` trains.

    Raises:
        ValueError: the data does not fit the recipe.
    """
    check_frames(job.clips, job.model)
    orders = [(stage, stage_order(job, stage)) for stage in job.training.selected_stages]
    counts: dict[int, tuple[int, int]] = {stage: (o.train_count, o.validated_count) for stage, o in orders}
    plans = plan_of(job.model, job.training, counts)
    return [_with_latents(plan, job, order) for plan, (_, order) in zip(plans, orders, strict=True)]


def _with_latents(plan: StagePlan, job: Job, order: GlobalOrder) -> StagePlan:
    """Return a plan with the memory that the stored latents of stage 2 take, if they are stored."""
    if plan.stage == 1 or not job.training.latent_memory_gb:
        return plan
    needed = bytes_needed(job, order.train)
    return replace(plan, memory_bytes=plan.memory_bytes + needed) if have_room(job, needed) else plan


def plan_of(
    model: ModelConfig, training: TrainingConfig, counts: Mapping[int, tuple[int, int]] | None = None
) -> list[StagePlan]:
    """Return the plans of the stages of a run.

    Args:
        model: settings of the model.
        training: settings of the training.
        counts: numbers of training and validation clips by stage, if known.

    Raises:
        UserError: the model is larger than the memory of this machine, which has to hold it once.
    """
    from vdsm.disentangler import Disentangler

    check_size(model)
    disentangler = Disentangler(model)
    total = sum(parameter.numel() for parameter in disentangler.parameters())
    plans = []
    for stage in training.selected_stages:
        config = training.stage(stage)
        trained = sum(p.numel() for p in disentangler.prepare_stage(stage).parameters() if p.requires_grad)
        frames = config.sequence_frames
        # Gradients; two moments, perhaps sharded; the EMA of the weights, if one is kept.
        moments = 2 * trained // (training.num_workers if training.shard_optimiser else 1)
        weights = total + trained + moments + (total if training.ema_decay else 0)
        groups = config.batch_clips // config.samples_together
        clips = -(-groups // (training.min_workers or training.num_workers) // config.accumulation)
        clips *= config.samples_together
        decoded = config.num_decoded_frames or frames
        activations = _activations(model, clips, frames, decoded)
        activations //= 2 if training.precision in ("bf16", "fp16") else 1
        train_clips, validation_clips = counts[stage] if counts else (None, None)
        plans.append(
            StagePlan(
                stage=stage,
                steps=config.steps,
                batch_clips=config.batch_clips,
                sequence_frames=frames,
                num_decoded_frames=decoded,
                train_clips=train_clips,
                validation_clips=validation_clips,
                parameters=trained,
                memory_bytes=FLOAT_BYTES * (weights + activations),
            )
        )
    return plans


def check_size(model: ModelConfig) -> None:
    """Check by arithmetic that a model fits in the memory of this machine, before it is made.

    Raises:
        UserError: it does not.
    """
    widths = (model.pose_size + model.num_experts, *model.decoder_channels, model.channels)
    recurrent = 8 * model.rnn_layers * model.rnn_width**2
    convolved = sum(9 * prod(pair) for pair in pairwise((model.channels, *model.encoder_channels)))
    kernels = model.num_experts * 16 * sum(prod(pair) for pair in pairwise(widths))
    needed, total = FLOAT_BYTES * (recurrent + convolved + kernels), memory_bytes()
    if total is not None and needed > total:
        raise UserError(
            f"the model has at least {needed / FLOAT_BYTES:,.0f} parameters, {needed / 1e9:,.1f} GB, and this machine "
            f"has {total / 1e9:,.1f} GB of memory; lower its sizes: num_experts, rnn_width, rnn_layers, channels"
        )


def _activations(model: ModelConfig, clips: int, frames: int, decoded: int) -> int:
    """Return the number of activations of image encoder and decoder; those of the recurrent nets are negligible."""
    size, per_frame, per_decoded = model.frame_size, 0, 0
    for channels in model.encoder_channels:
        per_frame += 3 * channels * size * size  # convolution, activation, and the input of the blur pool
        size //= 2
    size = 4
    for channels in (*model.decoder_channels, model.channels):
        per_decoded += 2 * channels * size * size
        size *= 2
    # Each clip has its own blend of every kernel, and its gradient.
    widths = (model.pose_size + model.num_experts, *model.decoder_channels, model.channels)
    kernels = 2 * 16 * sum(prod(pair) for pair in pairwise(widths))
    return clips * (frames * per_frame + decoded * per_decoded + kernels)
