"""Settings of the sources: one section per source; a recipe uses the one selected by `source.name`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.cli.paths import Location
from cluster.cli.settings import Section

MAX_FRAMES = 4096
"""Most frames of a clip."""


class LabelsConfig(Section):
    """Where the labels of an input come from: its folders, its path, a sidecar file. Later ones override earlier ones.

    Three labels are special: `identity` is who or what is shown, and all its clips go to one split; `split` is `train`
    or `test`; `action` is the dynamic label. Every other label describes the whole clip.
    """

    folders: tuple[str, ...] = ()
    """Label given by each folder between source.path and an input, outermost first; `_` skips a folder. With
    `identity action`, anna/wave/03.mp4 shows the identity anna and the action wave."""
    pattern: str | None = None
    """Regular expression, searched for in an input's path relative to source.path. Each named group is a label:
    `(?P<identity>s[0-9]+)_(?P<action>[a-z]+)`."""
    sidecar: Location | None = None
    """CSV file with a header, or JSON file with a list of objects, one row per input: column `path`, then labels. The
    columns `left`, `top`, `width`, `height` are a crop box in pixels. `start_s` and `end_s` select a segment of the
    input, in seconds; an input may have several rows, one per segment. A row with a reason in `dropped` is not used."""
    numbers: tuple[str, ...] = ()
    """Labels that are numbers, such as an age. They become continuous factors instead of categories."""


class ClipsConfig(Section):
    """How frames become clips."""

    size: int = Field(default=64, ge=8, le=1024)
    """Height and width of a clip's frames, in pixels."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: RGB."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How frames that are not square become square. `crop`: keep the centre; `pad`: add black bars; `stretch`: change
    the aspect ratio."""
    clip_frames: int = Field(default=16, ge=2, le=MAX_FRAMES)
    """Frames per clip."""
    stride: int | None = Field(default=None, ge=1)
    """Frames from the start of one clip to the start of the next; by default, clips do not overlap."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the identities in the test split, unless a label sets the split."""
    labels: LabelsConfig = LabelsConfig()


class VideosConfig(ClipsConfig):
    """Video files, in every container and codec that PyAV reads."""

    fps: float | None = Field(default=None, gt=0, le=1000)
    """Resample to this many frames per second, using the timestamps; by default every frame is kept."""
    max_pixels: int = Field(default=4096 * 4096, ge=64)
    """Largest accepted frame size, in pixels (width x height); a video with larger frames is rejected."""


class FramesConfig(ClipsConfig):
    """Folders of images: each folder is a video, with its images in the order of the numbers in their names."""

    fps: float = Field(default=25.0, gt=0, le=1000)
    """Frames per second at which the images were taken."""
    max_pixels: int = Field(default=4096 * 4096, ge=64)
    """Largest accepted image size, in pixels (width x height); a video with larger images is rejected."""


class ArraysConfig(ClipsConfig):
    """NumPy files: .npy, or .npz with the frames of many videos and an array `labels`."""

    fps: float = Field(default=25.0, gt=0, le=1000)
    """Frames per second of the arrays."""
    label_names: tuple[str, ...] = ("identity", "action")
    """Names of the columns of the array `labels` [N, K], in order."""


class Hdf5Config(Section):
    """An HDF5 file in the layout of MSD-Benchmark: videos with the values of their factors, and splits."""

    size: int | None = Field(default=None, ge=8, le=1024)
    """Height and width of a clip's frames, in pixels, cropped to the centre square; by default those of the file, whose
    frames must be square."""
    fps: float = Field(default=25.0, gt=0, le=1000)
    """Frames per second, which the layout does not state."""
    splits: Literal["file", "identities"] = "file"
    """`file`: the splits of the file, with its `val` in train; no combination of static factors may be in both.
    `identities`: draw test_fraction of the combinations of static factors."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the combinations of static factors in the test split, where splits are drawn."""


class HuggingFaceConfig(VideosConfig):
    """A video data set of the Hugging Face Hub, in Parquet files with the bytes of a video in each row."""

    column: str | None = None
    """Column with the videos; by default the only one that holds bytes."""
    label_columns: tuple[str, ...] = ()
    """Columns that are labels, each as `label=column`, or as `column` if both have one name: `identity=subject
    action=label`."""
    splits: Literal["drawn", "file"] = "drawn"
    """`drawn`: test_fraction of the identities. `file`: files with `test` in their names are the test split."""


class FiguresConfig(Section):
    """The built-in generator of articulated figures."""

    identities: int = Field(default=400, ge=2)
    """Number of distinct figures (combinations of static attributes); each performs every action."""
    size: int = Field(default=64, ge=32, le=256)
    """Height and width of a frame, in pixels."""
    clip_frames: int = Field(default=8, ge=2, le=MAX_FRAMES)
    """Frames per clip."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the identities in the test split."""


class MovingMnistConfig(Section):
    """Handwritten digits that move in straight lines and bounce off the edges."""

    digits: int = Field(default=1, ge=1, le=4)
    """Digits per clip."""
    size: int = Field(default=64, ge=32, le=256)
    """Height and width of a frame, in pixels; a digit is 28x28."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: the same as RGB."""
    clip_frames: int = Field(default=16, ge=2, le=MAX_FRAMES)
    """Frames per clip."""
    train_identities: int = Field(default=10_000, ge=1, le=1_000_000)
    """Digit images (or groups of `digits` images) from the MNIST training set."""
    test_identities: int = Field(default=1_000, ge=1, le=1_000_000)
    """Digit images (or groups of `digits` images) from the MNIST test set."""
    clips_per_identity: int = Field(default=2, ge=1, le=10_000)
    """Clips per identity, each with a different motion."""
    speed: float = Field(default=3.0, gt=0, le=16)
    """Speed of a digit, in pixels per frame."""


class PendulumConfig(Section):
    """A frictionless pendulum, simulated by integrating its equation of motion."""

    identities: int = Field(default=300, ge=2)
    """Number of distinct pendulums (combinations of length, bob, colour and background)."""
    clips_per_identity: int = Field(default=6, ge=1, le=10_000)
    """Clips per pendulum, which differ in amplitude and initial phase."""
    size: int = Field(default=64, ge=32, le=256)
    """Height and width of a frame, in pixels."""
    clip_frames: int = Field(default=60, ge=2, le=MAX_FRAMES)
    """Frames per clip."""
    fps: float = Field(default=20.0, gt=0, le=1000)
    """Frames per second."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the pendulums in the test split."""


LOOPING = ("figures", "lpc")
"""Sources whose actions loop, so that a clip can show several cycles."""


class SourceConfig(Section):
    """Where clips come from."""

    name: Literal["figures", "videos", "frames", "arrays", "hdf5", "huggingface", "lpc", "moving_mnist", "pendulum"] = (
        "figures"
    )
    """Kind of source. `figures`, `pendulum`: generated, no files needed. `videos`, `frames`, `arrays`: your own files.
    `hdf5`: a file for MSD-Benchmark. `huggingface`: Parquet files of the Hugging Face Hub, or hf://ORG/NAME. `lpc`:
    Sprites, from the sheets of either published set. `moving_mnist`: bouncing digits, from the four MNIST files."""
    path: Location | None = None
    """Local folder or s3:// prefix of the source's files. For `videos` also one file, a pattern such as `clips/*.mp4`,
    or a .txt file with one path per line."""
    repeat: int = Field(default=1, ge=1, le=64)
    """For `figures` and `lpc`, whose actions loop: how many times as long their clips are. Figures move on at their own
    speed; Sprites, whose clips are one cycle, repeat it."""
    videos: VideosConfig = VideosConfig()
    frames: FramesConfig = FramesConfig()
    arrays: ArraysConfig = ArraysConfig()
    hdf5: Hdf5Config = Hdf5Config()
    huggingface: HuggingFaceConfig = HuggingFaceConfig()
    figures: FiguresConfig = FiguresConfig()
    moving_mnist: MovingMnistConfig = MovingMnistConfig()
    pendulum: PendulumConfig = PendulumConfig()

    @model_validator(mode="after")
    def _check_repeat(self) -> Self:
        if self.repeat > 1 and self.name not in LOOPING:
            raise ValueError(
                f"repeat is {self.repeat}, but the actions of source {self.name} do not loop; leave it at 1, or use "
                f"{' or '.join(LOOPING)}"
            )
        return self
