"""The request of `vdsm generate`: what to generate, and from which clips. Field docstrings are the help of options."""

from typing import Literal, get_args

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section
from cluster.errors import UserError

Kind = Literal["transfer", "prior", "samples", "interpolation", "rollout", "reconstruction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NEEDS_SEQUENCE_STAGE: tuple[Kind, ...] = ("samples", "rollout")

Format = Literal["gif", "mp4", "webm", "png", "npz"]
FORMATS: tuple[Format, ...] = get_args(Format)


class GenerationRequest(Section):
    """A run, the clips that drive it, and what to draw from them."""

    run: Location | None = None
    """Folder of the run, <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    model: Location | None = None
    """In place of `run`: an exported model, as a folder that `vdsm export` wrote, local or in S3, as hf://ORG/NAME, or
    as the name of a model that comes with vdsm, such as figures."""
    out: Location
    """Folder for the output, or one file that ends in .gif, .mp4, .webm, .png or .npz; may be in S3."""
    data: Location | None = None
    """Dataset that the run was trained on; its test clips replace donors that you do not give."""
    dynamics_of: tuple[Location, ...] = ()
    """Clips that give the action: videos, folders of images, .npy or .npz files, or keys of clips of the data. Videos
    and images are cropped to the centre square and resized."""
    static_of: tuple[Location, ...] = ()
    """Clips that give the identity, in the same forms as `dynamics-of`, or still pictures."""
    what: Literal["all", "transfer", "prior", "samples", "interpolation", "rollout", "reconstruction"] | None = None
    """`transfer`: donors of the action in the first column, of the identity in the first row. `prior`: static codes
    sampled from the prior, one per column. `samples`: all codes sampled from the prior. `interpolation`: from each
    identity to the next. `rollout`: clips above, their continuation by the model below. `reconstruction`: clips above,
    decoded clips below. By default `transfer` with clips of your own, otherwise `all`."""
    format: Format | None = None
    """`gif`, `mp4` and `webm` are animated; `png` shows all frames side by side; `npz` holds the generated clips as
    `frames`, uint8 [N, T, H, W, C], with the keys of their donors. By default the extension of `out`, or gif."""
    bare: bool = False
    """Write only what the model generated: no donors beside it, no gaps, no repetition. With one action and one
    identity, that is the clip alone, of `scale` times the model's size."""
    rows: int | None = Field(default=None, ge=1)
    """Maximum number of actions, or of rows of samples; by default all actions, or 4 rows of samples."""
    columns: int = Field(default=8, ge=1)
    """Maximum number of identities, samples, steps or clips side by side."""
    length: int | None = Field(default=None, ge=1)
    """Frames per clip; by default as in training, for rollouts four times as many. The dynamics code can generate more
    frames than a clip has."""
    scale: int = Field(default=2, ge=1, le=16)
    """Output pixels per pixel of a clip."""
    fps: float | None = Field(default=None, gt=0, le=60)
    """Frames per second of the output; by default those of the clips."""
    clip_fps: float | None = Field(default=None, gt=0)
    """Frames per second at which your own videos are read; by default those of the data, or every frame."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, cuda:1, mps or xpu. `auto` is a CUDA or XPU device if there is one, else the
    CPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of identities and of the samples."""
    prior: Literal["fitted", "published"] = "fitted"
    """What `prior` and `samples` sample from: the densities that were fitted to the training codes, if the run has
    them, or the published priors of the model."""
    refinement_steps: int = Field(default=0, ge=0, le=100_000)
    """Gradient steps that refine the static code of each clip on its own frames; 30 bring out handwriting and other
    fine detail."""
    other_data: bool = False
    """Allow data other than the data that the run was trained on."""

    @property
    def source(self) -> str:
        """Where the model is.

        Raises:
            UserError: both `run` and `model` are given, or neither.
        """
        if self.run is None and self.model is None:
            raise UserError("run has no value; give it with --run, or an exported model with --model")
        if self.run is not None and self.model is not None:
            raise UserError(f"--run {self.run} and --model {self.model} are two models; give one of them")
        return self.run or self.model or ""
