"""Settings of the training. Plain dataclasses, for the loop also runs where only torch and pyro are installed."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vdsm.config import STAGE_2_ANNEALING, AnnealingConfig

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of the training."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    steps: int = 10_000
    """Optimiser steps of this stage."""
    batch_clips: int = 20
    """Clips in one global batch, over all workers; must be a multiple of the number of workers."""
    clip_frames: int = 8
    """Frames taken from each clip, as one consecutive window at a position drawn per epoch and clip."""
    pairing: Literal["none", "identity"] = "none"
    """`identity`: join windows of two clips of the same identity into one sequence (stage 1 only). This is weak
    supervision by identity, as in the paper's Sprites runs; `none` uses no label at all."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    final_rate_fraction: float = 1.0
    """The learning rate ends at this fraction of its peak, along half a cosine; 1 keeps it constant."""
    gradient_clip: float = 0.0
    """Largest global norm of the gradient; 0 turns clipping off."""
    annealing: AnnealingConfig = AnnealingConfig()
    """KL weights and temperature over the stage."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_clips", "clip_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.warmup_steps < 0 or self.gradient_clip < 0:
            raise ValueError("warmup_steps and gradient_clip must not be negative")
        if not 0 <= self.final_rate_fraction <= 1:
            raise ValueError(f"final_rate_fraction is {self.final_rate_fraction}; it must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Both stages, their workers, and what is kept of them."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    stages: Literal["both", "1", "2"] = "both"
    """Stages to train: 1 = frame stage, 2 = sequence stage (needs a finished stage 1 in the same run)."""
    stage1: StageConfig = StageConfig()
    """The frame stage."""
    stage2: StageConfig = field(default_factory=lambda: StageConfig(annealing=STAGE_2_ANNEALING))
    """The sequence stage."""
    num_workers: int = 2
    """Training processes; each holds a copy of the model (DDP)."""
    threads_per_worker: int = 1
    """CPU threads of each worker."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    validation_fraction: float = 0.1
    """Share of the training identities that is held out for validation."""
    validation_interval: int = 500
    """Steps between measurements of the un-annealed validation ELBO."""
    checkpoint_interval: int = 200
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept (the end of each stage is always kept)."""
    log_interval: int = 10
    """Steps between progress lines and TensorBoard points."""
    max_failures: int = 3
    """Worker failures after which the run gives up; -1 never does."""

    def __post_init__(self) -> None:
        counts = ("num_workers", "threads_per_worker", "keep_checkpoints")
        intervals = ("validation_interval", "checkpoint_interval", "log_interval")
        for name in counts + intervals:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must be in (0, 1)")
        if self.stage2.pairing != "none":
            raise ValueError("stage2.pairing must be none: a dynamics code belongs to one clip")
        for name in ("stage1", "stage2"):
            stage = getattr(self, name)
            if stage.batch_clips % self.num_workers:
                raise ValueError(
                    f"{name}.batch_clips is {stage.batch_clips}, which {self.num_workers} workers cannot share evenly; "
                    f"make it a multiple of num_workers"
                )
