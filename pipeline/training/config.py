"""Settings of the training: plain dataclasses, because the loop also runs where only torch and pyro are installed."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cluster.errors import without_credentials
from pipeline.training.samples_config import AppearanceConfig, AugmentationConfig
from pipeline.training.stage_config import StageConfig
from vdsm.config import STAGE_2_ANNEALING

_STRICT = {"extra": "forbid"}

Noise = Literal["keyed", "global"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Both stages, their workers, and what the run keeps."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    stages: Literal["both", "1", "2"] = "both"
    """Stages to train: 1 is the frame stage; 2 is the sequence stage and needs a finished stage 1 in the same run."""
    stage1: StageConfig = StageConfig()
    """The frame stage."""
    stage2: StageConfig = field(default_factory=lambda: StageConfig(annealing=STAGE_2_ANNEALING))
    """The sequence stage."""
    appearance: AppearanceConfig = AppearanceConfig()
    """How `pairing: appearance` finds clips that look alike."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of the training samples of both stages; validation sees the clips unchanged."""
    stage2_start: Literal["last", "best"] = "last"
    """Stage-1 weights that stage 2 starts from: the last ones, which alone have completed the annealing, or those with
    the best un-annealed validation ELBO."""

    num_workers: int = 2
    """Training processes; each holds a copy of the model (DDP)."""
    min_workers: int | None = None
    """Elastic training: continue with as few workers as this while the cluster has no room for num_workers; none
    means to wait."""
    resize_interval_s: float = 60.0
    """Seconds between checks whether the cluster has room for more workers, if min_workers is set."""
    threads_per_worker: int = 1
    """CPU threads per worker."""
    use_gpu: bool = False
    """Use one GPU per worker."""
    worker_resource: str | None = None
    """Custom Ray resource, such as a node type, of which each worker takes one unit."""

    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    """Precision of the forward and backward pass. `tf32` and `fp16` need GPUs; `auto` is bf16 where the workers'
    devices have instructions for it, else fp32. Weights, optimiser and losses stay in fp32."""
    deterministic: bool = False
    """Use only algorithms that give the same bits each time. On CPUs all of them do; on GPUs the others are faster."""
    noise: Noise = "keyed"
    """How random numbers of samples are drawn. `keyed`: those of a sample depend on the seed, the step and its position
    in the batch, and a worker draws those of its own samples. `global`: each worker draws those of the complete batch,
    as earlier versions did. The values differ; a run keeps what it was started with."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average (EMA) of the weights, such as 0.999; 0 keeps none."""
    ema_used: bool = True
    """Use the EMA weights, if there are any, for validation, the start of stage 2, evaluation and generation instead of
    the last trained ones."""
    compile: bool = False
    """Compile the image encoder and decoder with torch.compile."""
    static_graph: bool = False
    """Let DDP assume that the graph is the same in every step, which overlaps more of the all-reduce. Not used in a
    stage with `accumulation` above 1, with which DDP fails."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """Format in which workers exchange gradients; bf16 halves the traffic."""
    shard_optimiser: bool = False
    """Shard the optimiser state over the workers (ZeRO-1). Does not change the result."""

    order: Literal["lanes", "blocks"] = "lanes"
    """Order of the clips; every epoch visits all shards in a new one. `lanes`: each worker reads shards of its own.
    `blocks`: every worker reads all shards, as in earlier versions. A run keeps what it was started with."""
    block_shards: int = 32
    """Shards whose clips are shuffled together, over all workers; with `order: lanes` at least two for every lane, of
    which there is one for 8 clips of a batch if the dataset has enough shards."""
    cache_gb: float = 100.0
    """Size of each machine's cache of shards from S3, in GB (10^9 bytes)."""
    latent_memory_gb: float = 0.0
    """Memory of each worker in GB (10^9 bytes) for what the frozen image encoder reads in the training clips. Stage 2
    then encodes each clip once, at its start, in place of every step, if all fit. 0: in every step."""
    audit: bool = False
    """Record in audit/ which worker trained on which clips at each step."""

    validation_fraction: float = 0.1
    """Fraction of the training identities held out for validation; with pairing by appearance or video, which read no
    labels, of the groups of clips that look alike, or of the videos."""
    validation_unit: Literal["group", "clip"] = "group"
    """What is held out: whole groups, so that validation is about people who are not trained on; or single clips, where
    there are so few people that nobody can be spared. Then windows of a video that overlap are on both sides."""
    validation_clips: int | None = 8192
    """Maximum number of held-out clips that are validated on, always the same: those of shards chosen at random once;
    none means all. A run keeps what it was started with."""
    validation_interval: int = 500
    """Steps between evaluations of the un-annealed validation ELBO."""
    checkpoint_interval: int = 200
    """Steps between checkpoints."""
    checkpoint_interval_s: float = 0.0
    """Also save a checkpoint after a step that ends this many seconds or more after the last one; 0 for none. At scale,
    time bounds better than steps what a failure costs, and what checkpoints cost."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep; the last one and the best by validation of each stage are always kept."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Experiment trackers that show metrics, settings and sample animations while the run trains. Where they keep
    them, and their credentials, are settings of their own in the environment, such as WANDB_MODE=offline."""
    log_interval: int = 10
    """Steps between entries in metrics.jsonl and the trackers."""
    picture_interval: int = 1000
    """Steps between sample images and animations in the trackers; 0 disables them."""

    prior_clips: int = 3000
    """Maximum number of training clips to whose codes the priors are fitted at the end of a stage, which takes about a
    minute; 0 fits none."""

    max_failures: int = 3
    """Worker failures that the run survives; it gives up at the next one. -1: no limit."""
    max_rollbacks: int = 3
    """Maximum number of rollbacks. A loss that is not finite or blows up rolls the run back to its last good
    checkpoint, with a lower learning rate."""
    rollback_rate: float = 0.5
    """Factor of the learning rate at each rollback."""
    stall_timeout_s: float = 600.0
    """Seconds after which a reader that delivers no clip, or a worker that does not respond to the others, counts as
    failed."""
    storage_patience_s: float = 300.0
    """Seconds that storage may be unreachable before a worker gives up."""

    start_from: str | None = None
    """Warm start: the model whose weights are the initial ones, in place of random ones. A run's folder or S3 URL
    (its newest checkpoint), or the path or URL of one of its checkpoints or stage files. It is read once, when the run
    is started."""

    def __post_init__(self) -> None:
        counts = ("num_workers", "threads_per_worker", "keep_checkpoints", "block_shards")
        intervals = ("validation_interval", "checkpoint_interval", "log_interval")
        for name in counts + intervals:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, most in (("num_workers", 65_536), ("threads_per_worker", 1024)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {most:,}")
        at_least_0 = ("picture_interval", "prior_clips", "max_rollbacks", "storage_patience_s", "checkpoint_interval_s")
        for name in (*at_least_0, "latent_memory_gb"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("stall_timeout_s", "resize_interval_s", "cache_gb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers is {' '.join(self.trackers)}; name each once")
        if self.max_failures < -1:
            raise ValueError(f"max_failures is {self.max_failures}; it must be at least 0, or -1 for no limit")
        if self.validation_clips is not None and self.validation_clips < 1:
            raise ValueError(f"validation_clips is {self.validation_clips}; it must be at least 1, or none for all")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must be in (0, 1)")
        if self.start_from is not None and without_credentials(self.start_from) != self.start_from:
            raise ValueError(
                "start_from holds credentials, which would be stored with the run; name s3://bucket/prefix alone, and "
                "give credentials in the environment"
            )
        if self.precision == "tf32" and not self.use_gpu:
            raise ValueError("precision is tf32, which needs use_gpu (it is a format of NVIDIA GPUs); choose fp32")
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
        if self.latent_memory_gb and self.augmentation.is_active:
            raise ValueError(
                f"latent_memory_gb is {self.latent_memory_gb}, but augmentation changes the frames in every step, so "
                "that nothing can be stored; set latent_memory_gb to 0, or all of augmentation"
            )
        self._check_stages()

    @property
    def selected_stages(self) -> tuple[Literal[1, 2], ...]:
        """Return the stages to train, in order."""
        return (1, 2) if self.stages == "both" else ((1,) if self.stages == "1" else (2,))

    def stage(self, number: int) -> StageConfig:
        """Return the settings of stage 1 or 2."""
        return self.stage1 if number == 1 else self.stage2

    def uses_static_graph(self, number: int) -> bool:
        """Return whether DDP assumes a static graph in a stage.

        With passes that do not exchange gradients it fails: https://github.com/pytorch/pytorch/issues/143580.
        """
        return self.static_graph and self.stage(number).accumulation == 1

    def _check_stages(self) -> None:
        if self.stage2.pairing != "none":
            raise ValueError(
                f"stage2.pairing is {self.stage2.pairing}; it must be none, because a dynamics code belongs to one clip"
            )
        if self.stage1.rollout_frames is not None:
            raise ValueError(
                f"stage1.rollout_frames is {self.stage1.rollout_frames}, but stage 1 has no dynamics that a sequence "
                "could follow from; leave it out, or set stage2.rollout_frames"
            )
        if self.stage1.annealing.static_consistency and self.stage1.pairing == "none":
            raise ValueError(
                f"stage1.annealing.static_consistency is {self.stage1.annealing.static_consistency}, but stage1 has no "
                "pairs of clips to compare; set it to 0, or stage1.pairing to appearance or identity"
            )
        for stage in (1, 2):
            annealing = self.stage(stage).annealing
            if annealing.pair_tolerance is not None and not annealing.static_consistency:
                raise ValueError(
                    f"stage{stage}.annealing.pair_tolerance is {annealing.pair_tolerance}, but there is no "
                    "static_consistency that it could weaken; leave it out, or set stage1.annealing.static_consistency"
                )
        if self.stage1.annealing.motion_consistency and self.stage1.clip_frames < 2:
            raise ValueError(
                f"stage1.annealing.motion_consistency is {self.stage1.annealing.motion_consistency}, but stage1 has "
                "windows of one frame, in which nothing moves; set it to 0, or stage1.clip_frames to 2 or more"
            )
        elsewhere = (
            (1, "dynamics_consistency"),
            (1, "pose_distillation"),
            (2, "static_consistency"),
            (2, "motion_consistency"),
        )
        for stage, name in elsewhere:
            if weight := getattr(self.stage(stage).annealing, name):
                raise ValueError(
                    f"stage{stage}.annealing.{name} is {weight}, but {name} is a regulariser of stage {3 - stage}; "
                    f"set it to 0, or set stage{3 - stage}.annealing.{name} instead"
                )
        for name in ("stage1", "stage2"):
            self._check_stage(name, getattr(self, name))

    def _check_stage(self, name: str, stage: StageConfig) -> None:
        together = stage.samples_together
        if stage.batch_clips % together:
            raise ValueError(
                f"{name}.batch_clips is {stage.batch_clips}; motion_consistency needs an even number, because clips "
                f"exchange their static codes by twos; make it {stage.batch_clips + 1}"
            )
        groups = stage.batch_clips // together
        if groups < self.num_workers:
            raise ValueError(
                f"{name}.batch_clips is {stage.batch_clips}, but there are {self.num_workers} workers; make it "
                f"at least {self.num_workers * together}, or num_workers at most {groups}"
            )
        if groups // self.num_workers < stage.accumulation:
            raise ValueError(
                f"{name}.accumulation is {stage.accumulation}, but each of {self.num_workers} workers has "
                f"{groups // self.num_workers * together} clips of a batch; lower it"
            )
