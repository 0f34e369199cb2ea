"""What a training will do, worked out and checked before anything starts."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from pipeline.training.batches import check_frames
from pipeline.training.config import StageConfig
from pipeline.training.loop import stages_of
from pipeline.training.stage import Job, stage_config, stage_order
from vdsm.config import ModelConfig

FLOAT_BYTES = 4


@dataclass(frozen=True)
class StagePlan:
    """Figures of one stage."""

    stage: int
    steps: int
    batch_clips: int
    sequence_frames: int
    """Frames of one sample; twice the window when paired."""
    train_clips: int
    validation_clips: int
    parameters: int
    """Those that the stage trains."""
    memory_bytes: int
    """Estimate for each worker: weights, gradients, Adam's moments, and what is kept for the backward pass."""

    @property
    def epochs(self) -> float:
        """Times that each training clip is seen."""
        return self.steps * self.batch_clips / self.train_clips

    def __str__(self) -> str:
        return (
            f"stage {self.stage}: {self.steps:,} steps of {self.batch_clips} clips x {self.sequence_frames} frames "
            f"({self.epochs:.1f} epochs of {self.train_clips:,} clips; {self.validation_clips:,} for validation), "
            f"{self.parameters:,} parameters to train, about {self.memory_bytes / 1e9:.2f} GB per worker"
        )


def make_plan(job: Job) -> list[StagePlan]:
    """The stages that `job` trains. Raises ValueError where the data does not fit the recipe."""
    from vdsm.disentangler import Disentangler

    check_frames(job.clips, job.model)
    model = Disentangler(job.model)
    total = sum(parameter.numel() for parameter in model.parameters())
    plans = []
    for stage in stages_of(job.training):
        config, order = stage_config(job.training, stage), stage_order(job, stage)
        trained = sum(p.numel() for p in model.stage(stage).parameters() if p.requires_grad)
        frames = config.clip_frames * (2 if config.pairing == "identity" else 1)
        plans.append(
            StagePlan(
                stage=stage,
                steps=config.steps,
                batch_clips=config.batch_clips,
                sequence_frames=frames,
                train_clips=len(order.train),
                validation_clips=len(order.validation),
                parameters=trained,
                memory_bytes=FLOAT_BYTES * (total + 3 * trained)
                + _activation_bytes(job.model, config, config.batch_clips // job.training.num_workers, frames),
            )
        )
    return plans


def _activation_bytes(model: ModelConfig, config: StageConfig, clips: int, frames: int) -> int:
    """What the backward pass needs of the image encoder and decoder; the recurrent part is small beside them."""
    size, per_frame = model.frame_size, 0
    for channels in model.encoder_channels:
        per_frame += 3 * channels * size * size  # convolution, activation, and the input of the blur pool
        size //= 2
    size = 4
    for channels in (*model.decoder_channels, model.channels):
        per_frame += 2 * channels * size * size
        size *= 2
    # Each clip has its own blend of every kernel, and its gradient.
    widths = (model.pose_size + model.num_experts, *model.decoder_channels, model.channels)
    kernels = 2 * 16 * sum(prod(pair) for pair in pairwise(widths))
    return FLOAT_BYTES * clips * (frames * per_frame + kernels)
