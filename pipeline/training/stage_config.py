"""Settings of one stage of the training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from vdsm.config import AnnealingConfig

_STRICT = {"extra": "forbid"}

Pairing = Literal["none", "identity", "video", "appearance"]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of the training."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    steps: int = 10_000
    """Optimiser steps of this stage."""
    batch_clips: int = 20
    """Clips per global batch, over all workers. A multiple of their number shares the work evenly; the loss is the mean
    over the global batch in any case."""
    accumulation: int = 1
    """Gradient accumulation: parts into which each worker splits its clips of a batch. More parts need less memory and
    give the same gradient."""
    clip_frames: int = 8
    """Consecutive frames taken from each clip, from a start drawn anew in each epoch."""
    rollout_frames: int | None = None
    """Stage 2 only: longest sequence that is generated. Each step draws a length from `clip_frames` to this; the codes
    are inferred from the first `clip_frames` frames, and the others have to follow from them. Actions then last beyond
    the end of a clip. The clips must be this long. None: sequences of `clip_frames`, as published."""
    num_decoded_frames: int | None = None
    """Frames of each sequence that a step decodes, drawn anew in each step; none means all. The reconstruction loss is
    their mean, hence unbiased. With long clips, this frees compute for more clips per step."""
    pairing: Pairing = "none"
    """Second clip whose window is joined to each clip's into one sequence (stage 1 only). `identity`: another clip of
    the same identity; weak supervision, as in the paper's Sprites runs. Without labels: `appearance`, a clip that looks
    alike, see training.appearance; `video`, another window of the same video; `none`, no second clip."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    warmup_steps: int = 0
    """Steps of linear learning-rate warm-up from 0."""
    final_rate_fraction: float = 1.0
    """Fraction of the peak at which the learning rate ends, along a cosine decay; 1 keeps it constant."""
    gradient_clip: float = 0.0
    """Maximum global norm of the gradient; 0 disables clipping."""
    annealing: AnnealingConfig = AnnealingConfig()
    """KL weights and temperature over the stage."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_clips", "accumulation", "clip_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_decoded_frames is not None and not 1 <= self.num_decoded_frames <= self.sequence_frames:
            raise ValueError(
                f"num_decoded_frames is {self.num_decoded_frames}; it must be from 1 to {self.sequence_frames}, "
                "the frames of a sequence"
            )
        if self.rollout_frames is not None and self.rollout_frames < self.clip_frames:
            raise ValueError(
                f"rollout_frames is {self.rollout_frames}; it must be at least clip_frames, {self.clip_frames}, or none"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.warmup_steps < 0 or self.gradient_clip < 0:
            raise ValueError("warmup_steps and gradient_clip must not be negative")
        if not 0 <= self.final_rate_fraction <= 1:
            raise ValueError(f"final_rate_fraction is {self.final_rate_fraction}; it must be in [0, 1]")

    @property
    def window_frames(self) -> int:
        """Return the consecutive frames that are read of a clip."""
        return self.rollout_frames or self.clip_frames

    @property
    def sequence_frames(self) -> int:
        """Return the most frames of a sample: one window, or the two of a pair."""
        return self.window_frames * (1 if self.pairing == "none" else 2)

    @property
    def samples_together(self) -> int:
        """Return how many neighbouring samples of a batch a worker has to have together, in one pass."""
        return 2 if self.annealing.motion_consistency else 1
