"""Settings of the sources: one section each, of which a recipe uses the one that `source.name` says."""

from typing import Literal

from pydantic import Field

from cluster.cli.settings import Section


class LabelsConfig(Section):
    """What is known of an input: labels, and who is seen. Three places may tell; the later ones below win.

    Some names have a meaning of their own: `identity` is who or what is seen and stays in one split, `split` is train
    or test, and `action` is the label of what is done. All other labels say what a whole clip looks like.
    """

    folders: tuple[str, ...] = ()
    """What each folder between source.path and an input tells, outermost first; `_` tells nothing. With
    `identity action`, anna/wave/03.mp4 shows anna waving."""
    pattern: str | None = None
    """Regular expression, searched for in an input's path below source.path; each named group is a label:
    `(?P<identity>s[0-9]+)_(?P<action>[a-z]+)`."""
    sidecar: str | None = None
    """CSV with a header, or JSON (a list of objects), one row per input: column `path`, then labels. `left`, `top`,
    `width`, `height` are a crop box in pixels; `start_s`, `end_s` bound a part of the input, of which there may be
    several rows."""
    numbers: tuple[str, ...] = ()
    """Labels that are numbers, such as an age: kept as they are, not as one of several names."""


class ClipsConfig(Section):
    """How frames become clips."""

    size: int = Field(default=64, ge=8, le=1024)
    """Height and width of a clip's frames, in pixels."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: RGB."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """What is done with frames that are not square. `crop`: the middle is kept; `pad`: black bars; `stretch`."""
    clip_frames: int = Field(default=16, ge=2, le=4096)
    """Frames per clip."""
    stride: int | None = Field(default=None, ge=1)
    """Frames from the start of a clip to the start of the next; none means that they follow each other end to end."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the identities that goes to the test split, unless labels tell the split."""
    labels: LabelsConfig = LabelsConfig()


class VideosConfig(ClipsConfig):
    """Video files, in every container and codec that PyAV reads."""

    fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second of the clips, picked by the timestamps; none keeps every frame as it is."""
    max_pixels: int = Field(default=4096 * 4096, ge=64)
    """Videos with more pixels in a frame are rejected."""


class FramesConfig(ClipsConfig):
    """Folders of images: each folder is a video, its images in the order of the numbers in their names."""

    fps: float = Field(default=25.0, gt=0, le=1000)
    """Frames per second at which the images were taken."""
    max_pixels: int = Field(default=4096 * 4096, ge=64)
    """Images with more pixels are rejected."""


class ArraysConfig(ClipsConfig):
    """NumPy files: .npy, or .npz with the frames of many clips and an array `labels`."""

    fps: float = Field(default=25.0, gt=0, le=1000)
    """Frames per second of the arrays."""
    label_names: tuple[str, ...] = ("identity", "action")
    """What the columns of the array `labels` [N, K] tell, in order."""


class FiguresConfig(Section):
    """The built-in generator of articulated figures."""

    identities: int = Field(default=400, ge=2)
    """Distinct figures (combinations of static attributes) to draw; each performs every action."""
    clip_frames: int = Field(default=8, ge=2)
    """Frames per clip."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the identities that goes to the test split."""


class MovingMnistConfig(Section):
    """Handwritten digits that move in straight lines and bounce off the edges."""

    digits: int = Field(default=1, ge=1, le=4)
    """Digits in a clip."""
    size: int = Field(default=64, ge=32, le=256)
    """Height and width of a frame, in pixels; a digit has 28."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: the same as RGB."""
    clip_frames: int = Field(default=16, ge=2)
    """Frames per clip."""
    train_identities: int = Field(default=10_000, ge=1)
    """Digit images (or groups of `digits` images) drawn from the training set."""
    test_identities: int = Field(default=1_000, ge=1)
    """The same, from the test set."""
    clips_per_identity: int = Field(default=2, ge=1)
    """Clips of each, which move in different ways."""
    speed: float = Field(default=3.0, gt=0, le=16)
    """Pixels that a digit moves from one frame to the next."""


class PendulumConfig(Section):
    """A pendulum without friction, from the integrated equation of its swing."""

    identities: int = Field(default=300, ge=2)
    """Distinct pendulums (combinations of length, bob, colour and background)."""
    clips_per_identity: int = Field(default=6, ge=1)
    """Clips of each pendulum, which differ in how far it swings and where it is at the start."""
    size: int = Field(default=64, ge=32, le=256)
    """Height and width of a frame, in pixels."""
    clip_frames: int = Field(default=60, ge=2)
    """Frames per clip."""
    fps: float = Field(default=20.0, gt=0, le=1000)
    """Frames per second."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the pendulums that goes to the test split."""


class SourceConfig(Section):
    """Where clips come from."""

    name: Literal["figures", "videos", "frames", "arrays", "lpc", "moving_mnist", "pendulum"] = "figures"
    """Kind of source. `figures`, `pendulum`: drawn here. `videos`, `frames`, `arrays`: your own files. `lpc`: Sprites,
    from the sheets of either published set. `moving_mnist`: digits that move, from the four files of MNIST."""
    path: str | None = None
    """Where the source's files are: a folder; for videos also one file, a pattern such as `clips/*.mp4`, or a .txt file
    that lists paths. Any of them may be in S3."""
    videos: VideosConfig = VideosConfig()
    frames: FramesConfig = FramesConfig()
    arrays: ArraysConfig = ArraysConfig()
    figures: FiguresConfig = FiguresConfig()
    moving_mnist: MovingMnistConfig = MovingMnistConfig()
    pendulum: PendulumConfig = PendulumConfig()
