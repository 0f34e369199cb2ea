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
    accumulation: int = 1
    """Parts into which each worker cuts its clips of a batch, one forward and backward pass each: less memory, the same
    gradient."""
    clip_frames: int = 8
    """Frames taken from each clip, as one consecutive window at a position drawn per epoch and clip."""
    num_decoded_frames: int | None = None
    """How many frames of each sequence a step decodes, drawn anew in each; none: all. The reconstruction is their mean,
    and so right in expectation: where clips are long, the work of a step goes to more clips."""
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
        for name in ("steps", "batch_clips", "accumulation", "clip_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_decoded_frames is not None and not 1 <= self.num_decoded_frames <= self.sequence_frames:
            raise ValueError(
                f"num_decoded_frames is {self.num_decoded_frames}; it must be from 1 to {self.sequence_frames}, "
                "the frames of a sequence"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.warmup_steps < 0 or self.gradient_clip < 0:
            raise ValueError("warmup_steps and gradient_clip must not be negative")
        if not 0 <= self.final_rate_fraction <= 1:
            raise ValueError(f"final_rate_fraction is {self.final_rate_fraction}; it must be in [0, 1]")

    @property
    def sequence_frames(self) -> int:
        """Frames of one sample: a window, or those of both clips of a pair."""
        return self.clip_frames * (2 if self.pairing == "identity" else 1)


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
    stage2_start: Literal["last", "best"] = "last"
    """The weights of stage 1 that stage 2 starts from: its last, which alone saw the end of the annealing, or those of
    the best un-annealed validation ELBO."""

    num_workers: int = 2
    """Training processes; each holds a copy of the model (DDP)."""
    min_workers: int | None = None
    """Go on with fewer workers, down to this number, while the cluster has no room for num_workers; none: wait."""
    resize_interval_s: float = 60.0
    """Seconds between looks for room for more workers, where min_workers is set."""
    threads_per_worker: int = 1
    """CPU threads of each worker."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    worker_resource: str | None = None
    """Custom Ray resource of which each worker takes one unit, such as a kind of node."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers of the forward and backward pass (autocast); fp16 needs GPUs. Weights, optimiser and losses stay in
    fp32."""
    ema_decay: float = 0.0
    """Decay per step of a running average of the weights, such as 0.999; 0 keeps none."""
    ema_used: bool = True
    """Where there is an average: whether validation, stage 2's start, evaluation and generation use it, not the weights
    last trained."""
    compile: bool = False
    """Compile image encoder and decoder by torch.compile."""
    static_graph: bool = False
    """Let DDP take every step's graph for the same, which overlaps more of the all-reduce."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """Number format in which gradients travel between workers; bf16 halves the bytes."""
    shard_optimiser: bool = False
    """Each worker keeps its part of the optimiser's state only (ZeRO-1). Does not change the result."""

    block_shards: int = 32
    """Shards whose clips are mixed with each other: a machine reads about so many at a time. An epoch goes through all
    shards in an order of its own."""
    cache_gb: float = 100.0
    """Room for shards from S3 in each machine's cache, in GB (10^9 bytes)."""
    audit: bool = False
    """Keep, in audit/, which worker trained on which clips at each step."""

    validation_fraction: float = 0.1
    """Share of the training identities that is held out for validation."""
    validation_interval: int = 500
    """Steps between measurements of the un-annealed validation ELBO."""
    checkpoint_interval: int = 200
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; the end of each stage and its best by validation are always kept."""
    log_interval: int = 10
    """Steps between progress lines and TensorBoard points."""
    picture_interval: int = 1000
    """Steps between pictures in TensorBoard; 0 makes none."""

    max_failures: int = 3
    """Worker failures after which the run gives up; -1 never does."""
    max_rollbacks: int = 3
    """How often a loss that is not finite or blows up sends a run back to its last good checkpoint, with a lower
    learning rate."""
    rollback_rate: float = 0.5
    """What the learning rate is multiplied by each time."""
    stall_timeout_s: float = 600.0
    """Seconds after which a reader that brings no clip, or a worker that does not answer the others, has failed."""
    storage_patience_s: float = 300.0
    """Seconds for which storage may be unreachable before a worker gives up."""

    def __post_init__(self) -> None:
        counts = ("num_workers", "threads_per_worker", "keep_checkpoints", "block_shards")
        intervals = ("validation_interval", "checkpoint_interval", "log_interval")
        for name in counts + intervals:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("picture_interval", "max_rollbacks", "storage_patience_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("stall_timeout_s", "resize_interval_s", "cache_gb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.max_failures < -1:
            raise ValueError(f"max_failures is {self.max_failures}; it must be at least 0, or -1 for no limit")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must be in (0, 1)")
        if self.precision == "fp16" and not self.use_gpu:
            raise ValueError("precision is fp16, which needs use_gpu (CPUs have no LSTM in fp16); choose bf16 or fp32")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be in [0, 1), such as 0.999")
        if not 0 < self.rollback_rate < 1:
            raise ValueError(f"rollback_rate is {self.rollback_rate}; it must be in (0, 1)")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.num_workers:
            raise ValueError(
                f"min_workers is {self.min_workers}; it must be from 1 to num_workers, which is {self.num_workers}"
            )
        if self.stage2.pairing != "none":
            raise ValueError("stage2.pairing must be none: a dynamics code belongs to one clip")
        if self.stage1.annealing.static_consistency and self.stage1.pairing == "none":
            raise ValueError(
                f"stage1.annealing.static_consistency is {self.stage1.annealing.static_consistency}, but stage1 has no "
                "pairs of clips to compare; set it to 0, or stage1.pairing to identity"
            )
        elsewhere = ((1, "dynamics_consistency"), (1, "pose_distillation"), (2, "static_consistency"))
        for stage, name in elsewhere:
            if weight := getattr((self.stage1 if stage == 1 else self.stage2).annealing, name):
                raise ValueError(
                    f"stage{stage}.annealing.{name} is {weight}, but {name} is a regulariser of stage {3 - stage}; "
                    f"set it to 0, or set stage{3 - stage}.annealing.{name} instead"
                )
        for name in ("stage1", "stage2"):
            self._check_stage(name, getattr(self, name))

    def _check_stage(self, name: str, stage: StageConfig) -> None:
        if stage.batch_clips % self.num_workers:
            raise ValueError(
                f"{name}.batch_clips is {stage.batch_clips}, which {self.num_workers} workers cannot share evenly; "
                f"make it a multiple of num_workers"
            )
        if stage.batch_clips // self.num_workers < stage.accumulation:
            raise ValueError(
                f"{name}.accumulation is {stage.accumulation}, but each of {self.num_workers} workers has "
                f"{stage.batch_clips // self.num_workers} clips of a batch; lower it"
            )
