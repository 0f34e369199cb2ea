"""The input of the training loop, and how far a run got."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.training.batches import Clips, clip_table
from pipeline.training.config import TrainingConfig
from pipeline.training.order import GlobalOrder
from pipeline.training.state import Provenance
from vdsm.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """The model to train, its settings and its clips."""

    model: ModelConfig
    training: TrainingConfig
    seed: int
    clips: Clips
    provenance: Provenance = field(default_factory=Provenance)
    """Stored in every checkpoint."""


class Outcome(NamedTuple):
    """How far a run got."""

    stage: int
    step: int
    finished: bool


def stage_order(job: Job, stage: int) -> GlobalOrder:
    """Return the order in which a stage sees the clips.

    Raises:
        ValueError: the dataset does not allow it; see `GlobalOrder`.
    """
    config = job.training.stage(stage)
    return GlobalOrder(
        clip_table(job.clips),
        seed=job.seed,
        stage=stage,
        window=config.clip_frames,
        batch=config.batch_clips,
        validation_fraction=job.training.validation_fraction,
        pairing=config.pairing == "identity",
        block_shards=job.training.block_shards,
    )
