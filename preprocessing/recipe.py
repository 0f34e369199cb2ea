"""Settings of the sharding job."""

from typing import Literal

from pydantic import Field

from cluster.cli.settings import Section
from preprocessing.sources.config import SourceConfig

SOURCE_SETTINGS = (
    *(f"source.{name}" for name in ("name", "path")),
    *(f"source.videos.{name}" for name in ("size", "channels", "fit", "clip_frames", "stride", "fps", "labels")),
    "shards.target_mb",
)
"""Dotted paths of the settings that someone who shards meets first."""


class ShardsConfig(Section):
    """How clips are packed into shards, and how invalid or unreachable inputs are handled."""

    target_mb: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    """Approximate size of a shard in MB (10^6 bytes), estimated from the inputs; an input is never split."""
    format: Literal["auto", 2, 3] = "auto"
    """Version of the dataset's format. `auto`: 3, which needs pyarrow, above 100,000 clips in the plan (an input of
    unknown length counts as one), and 2, whose indexes are JSON, up to that. A dataset that exists keeps its own; `vdsm
    verify --upgrade` makes 3 of 2."""
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    """Number of shards written at the same time; by default one per CPU of the cluster. Does not change the bytes."""
    decode_seconds: int = Field(default=60, ge=1)
    """CPU time that an untrusted input may take from one clip to the next, in seconds; an input that takes longer is
    rejected, as is one that makes no progress for as long."""
    decode_mb: int = Field(default=700, ge=100)
    """Memory that decoding an untrusted input may take, in MB (10^6 bytes); an input that needs more is rejected."""
    patience_seconds: int = Field(default=120, ge=0)
    """How long to retry storage that does not respond, or a disk that fails, before the job stops, in seconds."""
    max_rejected_share: float = Field(default=0.75, ge=0, le=1)
    """Share of the inputs that may give no clip at all. Above it the job stops, once at least 20 inputs were read and
    chance cannot be the cause."""


class DataRecipe(Section):
    """The sections of a recipe that define the data."""

    seed: int = Field(default=0, ge=0)
    """Seed of all randomness: the same recipe gives the same bytes."""
    source: SourceConfig = SourceConfig()
    shards: ShardsConfig = ShardsConfig()
