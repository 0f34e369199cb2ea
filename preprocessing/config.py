"""Settings of the preprocessing job."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FiguresConfig(Section):
    """The built-in generator of articulated figures."""

    identities: int = Field(default=400, ge=2)
    """Distinct figures (combinations of static attributes) to draw; each performs every action."""
    clip_frames: int = Field(default=8, ge=2)
    """Frames per clip."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the identities that goes to the test split."""


class SourceConfig(Section):
    """Where clips come from."""

    name: Literal["figures", "lpc"] = "figures"
    """Kind of source. `figures`: drawn by the built-in generator. `lpc`: the Sprites set, rendered from its sheets."""
    path: str | None = None
    """Folder of the source's files (not used by `figures`)."""
    figures: FiguresConfig = FiguresConfig()
    """Settings of the `figures` source."""


class ShardsConfig(Section):
    """How clips are packed."""

    target_mb: float = Field(default=32.0, gt=0)
    """Size that a shard should reach before the next one begins, in MB (10^6 bytes)."""
    concurrency: int | None = Field(default=None, ge=1)
    """Shards written at the same time; none means one per CPU of the cluster. Does not change the bytes."""


class DataRecipe(Section):
    """The sections of a recipe that say what the data is."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything random: the same recipe gives the same bytes."""
    source: SourceConfig = SourceConfig()
    shards: ShardsConfig = ShardsConfig()
