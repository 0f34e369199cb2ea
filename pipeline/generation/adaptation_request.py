"""The request of `vdsm adapt`: which model, which clips, how. Field docstrings are the help of options."""

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section


class AdaptationRequest(Section):
    """A run and the clips of one person."""

    run: Location
    """Folder of the run, <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    videos: tuple[Location, ...] = ()
    """Clips of one person, whatever the person does: videos, folders of images, .npy or .npz files, pictures, or keys
    of clips of the data. Videos and images are cropped to the centre square and resized; people should be as large in
    them as in the training, see `vdsm prepare`."""
    out: Location
    """Folder for the adapted model, a run for `vdsm generate --run`; may be in S3."""
    data: Location | None = None
    """Dataset of the person's clips: all of them, or those that `videos` names by key, or those of `identity`."""
    identity: str | None = None
    """Adapt to the clips of this identity of the data, in addition to `videos`."""
    clip_fps: float | None = Field(default=None, gt=0)
    """Frames per second at which your own videos are read; by default those of the data, or every frame."""
    max_frames: int = Field(default=512, ge=1)
    """Maximum number of frames to fit, evenly spaced over all clips."""
    static_steps: int = Field(default=150, ge=0)
    """Gradient steps that fit the static code."""
    decoder_steps: int = Field(default=250, ge=0)
    """Gradient steps that fit the decoder; 0 fits the static code alone."""
    anchor: float = Field(default=2.5e-3, ge=0)
    """How strongly the decoder is held to the trained one, relative to the reconstruction in nats per pixel value. Less
    shows more of the person's detail; too little, and actions that the clips do not show get lost."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, cuda:1, mps or xpu. `auto` is a CUDA or XPU device if there is one, else the
    CPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of frames."""
