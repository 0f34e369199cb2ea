"""The input of the training loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from pipeline.training.batches import Clips
from pipeline.training.config import TrainingConfig
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable
from pipeline.training.state import Provenance
from preprocessing.appearance.pairs import MinedPairs, Video
from vdsm.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """The model to train, its settings and its clips."""

    model: ModelConfig
    training: TrainingConfig
    seed: int
    clips: Clips
    is_remote: bool = False
    """Whether a shard is downloaded completely before a clip of it is read, so that validation should read ahead."""
    pairs: MinedPairs | None = None
    """Pairs of clips that look alike, if stage 1 is paired by appearance."""
    start_weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Return the weights of a warm start; called only if there is no checkpoint to resume from. None: random ones."""
    provenance: Provenance = field(default_factory=Provenance)
    """Stored in every checkpoint."""


def stage_order(job: Job, stage: int) -> GlobalOrder:
    """Return the order in which a stage sees the clips.

    Raises:
        ValueError: the dataset does not allow it; see `GlobalOrder`.
    """
    config = job.training.stage(stage)
    return GlobalOrder(
        clip_table(job),
        seed=job.seed,
        stage=stage,
        window=config.window_frames,
        window_setting="clip_frames" if config.rollout_frames is None else "rollout_frames",
        batch=config.batch_clips,
        validation_fraction=job.training.validation_fraction,
        pairing=config.pairing != "none",
        block_shards=job.training.block_shards,
        lanes=job.training.order == "lanes",
        validation_clips=job.training.validation_clips,
        late_from=round(job.training.appearance.join * config.steps) if stage == 1 else 0,
    )


def clip_table(job: Job) -> ClipTable:
    """Return what the order of both stages needs to know of the clips.

    Clips are held out by the same rule in both stages, that of the pairing of stage 1; `video` and `appearance` read
    neither labels nor identities.
    """
    clips, pairing = job.clips, job.training.stage1.pairing
    if pairing == "appearance":
        if job.pairs is None or len(job.pairs) != len(clips.keys):
            raise ValueError("stage1.pairing is appearance, but the pairs of these clips were not mined")
        groups: Sequence[str] = [clips.keys[first] for first in job.pairs.groups(Video.of(clips)).tolist()]
    elif pairing == "video":
        video = Video.of(clips)
        if not video.are_videos:
            raise ValueError(
                "stage1.pairing is video, but several clips start at the same time of the same source, so they are not "
                "cut from videos; set pairing to appearance or identity"
            )
        groups = [clips.keys[first] for first in video.firsts().tolist()]
    else:
        groups = clips.identities
    frames, shards = (np.asarray(column, dtype=np.int64) for column in (clips.clip_frames, clips.clip_shards))
    pairs = job.pairs if pairing == "appearance" else None
    lone: Literal["refuse", "keep"] = "refuse" if pairing == "identity" else "keep"
    held_out_by = clips.keys if job.training.validation_unit == "clip" else None
    late = None if pairs is None else pairs.one_motion
    return ClipTable(clips.keys, groups, frames, shards, pairs, lone, late, held_out_by)
