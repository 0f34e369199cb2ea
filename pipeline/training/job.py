"""The input of the training loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

from pipeline.training.batches import Clips
from pipeline.training.config import TrainingConfig
from pipeline.training.held_out import HeldOut, Unit, find_held_out
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable, FirstClips
from pipeline.training.sharded_clips import ShardedTable
from pipeline.training.state import Provenance
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.dataset.mapped_clips import MappedClips
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
    held_out: HeldOut | None = None
    """What `held_out_of` finds, if it is known."""
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
        sharded_table(job) or clip_table(job),
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


def can_be_sharded(clips: Clips, training: TrainingConfig) -> bool:
    """Return whether an order can do with the mapped indexes of format 3, of which it opens those that it needs."""
    is_by_identity = training.stage1.pairing in ("none", "identity")
    is_mapped = isinstance(getattr(clips, "mapped", None), MappedClips)
    return is_mapped and training.order == "lanes" and is_by_identity


def sharded_table(job: Job) -> ShardedTable | None:
    """Return what the order of both stages needs, if that is little; see `can_be_sharded`. Else `clip_table` has it."""
    if not can_be_sharded(job.clips, job.training):
        return None
    mapped: MappedClips = job.clips.mapped  # type: ignore[attr-defined]
    held = job.held_out or held_out_of(mapped, job.seed, job.training)
    is_paired, is_by_clip = job.training.stage1.pairing == "identity", job.training.validation_unit == "clip"
    if is_paired and (is_by_clip or held.has_shared_groups):
        return None  # a partner may be in any shard
    return ShardedTable(mapped, held)


def held_out_of(clips: MappedClips, seed: int, training: TrainingConfig) -> HeldOut:
    """Return which clips are held out, found from the indexes of all shards, once in a process.

    Raises:
        ValueError: the dataset does not allow it; see `find_held_out`.
    """
    known = _KNOWN.setdefault(clips, {})
    unit: Unit = "key" if training.validation_unit == "clip" else "identity"
    wanted = (seed, training.validation_fraction, unit)
    if wanted not in known:
        known[wanted] = HeldOut.read(find_held_out(clips, *wanted), np.diff(clips.starts))
    return known[wanted]


_KNOWN: WeakKeyDictionary[MappedClips, dict[tuple[int, float, Unit], HeldOut]] = WeakKeyDictionary()


def clip_table(job: Job) -> ClipTable:
    """Return what the order of both stages needs to know of the clips.

    Clips are held out by the same rule in both stages, that of the pairing of stage 1; `video` and `appearance` read
    neither labels nor identities.
    """
    clips, pairing = job.clips, job.training.stage1.pairing
    if pairing == "appearance":
        if job.pairs is None or len(job.pairs) != len(clips.keys):
            raise ValueError("stage1.pairing is appearance, but the pairs of these clips were not mined")
        groups: Sequence[str] = FirstClips(clips.keys, job.pairs.groups(Video.of(clips)))
    elif pairing == "video":
        video = Video.of(clips)
        if not video.are_videos:
            raise ValueError(
                "stage1.pairing is video, but several clips start at the same time of the same source, so they are not "
                "cut from videos; set pairing to appearance or identity"
            )
        groups = FirstClips(clips.keys, video.firsts())
    else:
        groups = clips.identities
    frames, shards = (np.asarray(column, dtype=np.int64) for column in (clips.clip_frames, clips.clip_shards))
    pairs = job.pairs if pairing == "appearance" else None
    lone: Literal["refuse", "keep"] = "refuse" if pairing == "identity" else "keep"
    is_by_clip = job.training.validation_unit == "clip"
    held_out_by = FirstClips(clips.keys, np.arange(len(clips.keys))) if is_by_clip else None
    late = None if pairs is None else pairs.one_motion
    return ClipTable(clips.keys, groups, frames, shards, pairs, lone, late, held_out_by)
