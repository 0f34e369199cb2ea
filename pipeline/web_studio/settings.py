"""Settings of the studio: what it shows, what it computes with, and what it accepts."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section
from cluster.errors import UserError

BUILT_IN = "figures"
"""Model that is shown if none is named; it comes with the package."""
MOST_FRAMES = 256
"""Longest clip that is generated at a request, in frames."""
MOST_CELLS = 64
"""Most clips of a grid."""
MAX_RETRY_AFTER_S = 5
"""What a client is asked to wait before it repeats a request that could not be served, in seconds."""


class StudioSettings(Section):
    """A model and the data and runs to show with it."""

    run: Location | None = None
    """Folder of a run, <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    model: Location | None = None
    """In place of `run`: an exported model, as a folder that `vdsm export` wrote, local or in S3, as hf://ORG/NAME, or
    as the name of a model that comes with vdsm. Without both: figures."""
    data: Location | None = None
    """Dataset whose clips can be browsed and chosen; may be s3://bucket/prefix. Its frames must fit the model."""
    runs: Location | None = None
    """Folder of runs to compare, as given to `vdsm train --out`; may be s3://bucket/prefix."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, cuda:1, mps or xpu. `auto` is a CUDA or XPU device if there is one, else the
    CPU."""
    max_replicas: int = Field(default=2, ge=1, le=256)
    """Most copies of the model that are started under load; each takes a CPU, or a GPU where the model computes on
    one."""
    batch_clips: int = Field(default=16, ge=1, le=256)
    """Most clips of concurrent requests that the model computes at once; 1 switches batching off."""
    max_upload_mb: int = Field(default=64, ge=1, le=1024)
    """Largest accepted request with its uploads, in MB (10^6 bytes)."""
    max_upload_s: float = Field(default=30, gt=0, le=600)
    """Time in which a request with its uploads must arrive, in seconds."""
    max_video_s: float = Field(default=120, gt=0, le=3600)
    """Longest accepted video, in seconds."""
    max_pixels: int = Field(default=4096 * 2304, ge=64 * 64, le=4096 * 4096)
    """Largest accepted frame size, in pixels (width x height)."""

    @property
    def source(self) -> str:
        """Where the model is.

        Raises:
            UserError: both `run` and `model` are given.
        """
        if self.run is not None and self.model is not None:
            raise UserError(f"--run {self.run} and --model {self.model} are two models; give one of them")
        return self.run or self.model or BUILT_IN


@dataclass(frozen=True)
class ModelFacts:
    """What the pages need to know of the model."""

    name: str
    frame_size: int
    channels: Literal[1, 3]
    clip_frames: int
    fps: float
    """Frames per second at which clips are shown and videos are read."""
    static_size: int
    static_groups: int
    """Number of simplices that the static code is made of."""
    dynamics_size: int
    fitted: bool
    """Whether it has fitted priors, so that clips unlike its training data can be noticed."""
