"""The requests and answers of the API, as OpenAPI describes them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.report.animation import Animation, make_animation
from pipeline.report.images import Frames
from pipeline.web_studio.codes import MAX_SEED
from pipeline.web_studio.settings import MOST_CELLS, MOST_FRAMES

MediaFormat = Literal["mp4", "gif", "webm", "png"]
MEDIA_TYPES: dict[str, str] = {"mp4": "video/mp4", "gif": "image/gif", "webm": "video/webm", "png": "image/png"}
DOWNLOADS = ["mp4", "gif"]
"""Formats that the pages offer."""
PAGES = ["transfer", "grid", "explore", "dataset", "runs"]
ACCEPTED = "video/*,.gif,.npy,.npz,.mkv,.avi,.mpg"
SCALE = 4
"""Output pixels per pixel of a clip, in media files."""
Length = Field(default=None, ge=1, le=MOST_FRAMES, description="frames of each generated clip; by default as trained")


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Sheet(BaseModel):
    """An animation: all frames in one image, from top to bottom, column after column."""

    uri: str = Field(description="WebP image as a data URI")
    width: int
    height: int
    frames: int
    rows: int = Field(description="frames in one column of the image")
    fps: float
    alt: str

    @classmethod
    def of(cls, animation: Animation) -> "Sheet":
        """Return an animation as the page plays it."""
        return cls(
            uri=animation.uri, width=animation.width, height=animation.height, frames=animation.frames,
            rows=animation.rows, fps=animation.fps, alt=animation.alt,
        )  # fmt: skip

    @classmethod
    def of_clip(cls, clip: Frames, fps: float, alt: str) -> "Sheet":
        """Return a clip uint8 [T, H, W, C] as an animation."""
        return cls.of(make_animation(clip, fps, alt, clip.shape[2]))


class ReadingAnswer(BaseModel):
    """A clip as the model sees it."""

    name: str
    code: str = Field(description="reference to both codes of the clip, which other requests take in its place")
    clip: Sheet | None = Field(description="the frames that the model was given; null for codes and samples")
    reconstruction: Sheet = Field(description="the clip decoded from its own codes")
    share: float | None = Field(description="share of the training distribution that is less likely than the clip")
    psnr_db: float | None = Field(description="PSNR of the reconstruction, in dB")
    warning: str | None = Field(description="set if the clip is unlike what the model was trained on")


class TransferAnswer(BaseModel):
    """Who is seen in one clip does what is done in another."""

    identity: ReadingAnswer
    action: ReadingAnswer
    result: Sheet


class GridRequest(Strict):
    """Every identity (columns) performs every action (rows)."""

    identities: list[str] = Field(min_length=1, max_length=16, description="references to clips")
    actions: list[str] = Field(min_length=1, max_length=16, description="references to clips")
    frames: int | None = Length
    format: MediaFormat | None = Field(default=None, description="a media file instead of JSON")

    @property
    def cells(self) -> int:
        """Number of clips to generate."""
        return len(self.identities) * len(self.actions)


class GridAnswer(BaseModel):
    """All clips of a grid as one animation, which so plays in step."""

    grid: Sheet
    codes: dict[str, str] = Field(description="reference of each clip -> reference to its codes")


class Part(Strict):
    """One of the clips of a blend."""

    of: str = Field(description="reference to a clip")
    weight: float = Field(default=1, ge=0, le=1)


class WalkPart(Strict):
    """A step of the blended static code along a factor; see /api/factors."""

    factor: str = Field(max_length=200, description="name of the factor")
    towards: str = Field(max_length=200, description="one of its values")
    amount: float = Field(ge=0, le=1, description="0 changes nothing, 1 replaces what the code shows of the factor")


class FactorAnswer(BaseModel):
    """A trait of identities that can be changed alone."""

    name: str
    towards: list[str] = Field(description="values that it can be changed to")


class FactorsAnswer(BaseModel):
    """The factors."""

    labelled: bool = Field(description="whether they are attributes by which clips are labelled")
    factors: list[FactorAnswer]


class ExploreRequest(Strict):
    """One clip from blended codes."""

    static: list[Part] = Field(min_length=1, max_length=8, description="blend of identities")
    dynamics: list[Part] = Field(min_length=1, max_length=8, description="blend of actions")
    walk: WalkPart | None = Field(default=None, description="a trait to change in the blended identity")
    frames: int | None = Length
    format: MediaFormat | None = Field(default=None, description="a media file instead of JSON")


class ExploreAnswer(BaseModel):
    """The clip."""

    result: Sheet


class ClipEntry(BaseModel):
    """A stored clip."""

    of: str = Field(description="reference to the clip")
    key: str
    identity: str
    labels: dict[str, str]
    clip: Sheet


class ClipPage(BaseModel):
    """Some of the clips that match."""

    total: int
    offset: int
    clips: list[ClipEntry]


class CollectionAnswer(BaseModel):
    """A collection of stored clips."""

    kind: str = Field(description="beginning of the references to its clips")
    clips: int
    labels: dict[str, list[str]]


class LimitsAnswer(BaseModel):
    """Limits of requests."""

    upload_bytes: int
    video_seconds: float
    frame_pixels: int
    samples: int = Field(default=MAX_SEED, description="samples of the prior have seeds below this")
    frames: int = MOST_FRAMES
    cells: int = MOST_CELLS


class ModelAnswer(BaseModel):
    """The model, what can be chosen, and the limits."""

    name: str
    frame_size: int
    channels: int
    clip_frames: int
    fps: float
    collections: list[CollectionAnswer]
    has_runs: bool
    pages: list[str] = Field(description="the pages that can be shown")
    formats: list[str] = Field(description="media files in which results can be downloaded")
    accepts: str = Field(description="what a choice of a video offers, as the attribute `accept` of HTML")
    limits: LimitsAnswer


class ErrorAnswer(BaseModel):
    """Why a request was refused, in one line."""

    error: str
