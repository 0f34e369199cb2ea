"""Settings of the preprocessing job."""

from pydantic import Field

from cluster.cli.settings import Section
from preprocessing.sources.config import SourceConfig


class ShardsConfig(Section):
    """How clips are packed, and what is done about inputs that are bad or out of reach."""

    target_mb: float = Field(default=32.0, gt=0)
    """Size of a shard, about, in MB (10^6 bytes), going by what the source estimates; an input is never divided."""
    concurrency: int | None = Field(default=None, ge=1)
    """Shards written at the same time; none means one per CPU of the cluster. Does not change the bytes."""
    decode_seconds: int = Field(default=60, ge=1)
    """Seconds of CPU time that an untrusted input may take from one clip to the next, before it is rejected. One that
    is blocked for as long without using the CPU is rejected too."""
    decode_mb: int = Field(default=700, ge=100)
    """Memory that decoding an untrusted input may take, in MB (10^6 bytes), before it is rejected."""
    patience_seconds: int = Field(default=120, ge=0)
    """How long storage that does not answer, or a disk that fails, is tried again before the job stops, in seconds."""
    max_rejected_share: float = Field(default=0.75, ge=0, le=1)
    """Share of the inputs that may give no clip at all; above it the job stops (at 20 inputs, when that is certain)."""


class DataRecipe(Section):
    """The sections of a recipe that say what the data is."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything random: the same recipe gives the same bytes."""
    source: SourceConfig = SourceConfig()
    shards: ShardsConfig = ShardsConfig()
