"""Settings of `vdsm prepare`."""

from typing import Literal

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section
from preprocessing.recipe import DataRecipe
from preprocessing.sources.config import SourceConfig


class PrepareConfig(Section):
    """What is looked for in each video, and what is dropped."""

    detector: Literal["auto", "faces", "people", "motion"] = "auto"
    """What a crop is made around. `faces`: faces; `people`: upright people; `motion`: whatever moves before a still
    background. `auto`: a face that fills much of the picture, otherwise what moves, with the people in it."""
    face_model: Location | None = None
    """File of a YuNet face detector (.onnx), which finds more faces than the cascades that come with OpenCV."""
    margin: float = Field(default=1.2, ge=1, le=4)
    """Side of the square crop, as a multiple of the longer side of what it contains over the whole part."""
    follow: bool = False
    """Whether crops move: with somebody who crosses the picture, and with the shaking of a camera, so that its
    surroundings stand still. Otherwise each stands still, and whoever crosses the picture gets several."""
    max_tracks: int = Field(default=3, ge=1, le=50)
    """Largest number of crops at the same time; the most active ones are kept."""
    min_size: int = Field(default=48, ge=8)
    """Smallest side of a crop, in pixels of the video; smaller ones are dropped."""
    min_length_s: float | None = Field(default=None, gt=0)
    """Shortest part that is kept, in seconds; by default that of one clip, as `source.videos` defines it."""
    max_length_s: float = Field(default=15.0, ge=1, le=60)
    """Longer shots are divided into parts of about this length, in seconds; each part has crops of its own."""
    cut_threshold: float = Field(default=3.0, gt=0)
    """A frame is a cut if it differs this many times more from the one before than the frames around it do."""
    cut_change: float = Field(default=15.0, gt=0, le=255)
    """Least change of hue, saturation and brightness at a cut, on average over the frame, in levels of 255."""
    still: float = Field(default=3.0, ge=0, le=255)
    """Least change over time of what moves, in grey levels of 255 (root mean square); parts with less are dropped."""
    min_sharpness: float = Field(default=0.0, ge=0)
    """Least sharpness of a crop (variance of the Laplacian at 128x128 pixels); blurred ones are dropped."""
    hash_distance: int = Field(default=6, ge=0, le=31)
    """Two frames are near-duplicates if at most this many of the 64 bits of their perceptual hashes differ."""
    analysis_size: int = Field(default=640, ge=64, le=2048)
    """Longer side at which frames are examined, in pixels; smaller is faster and misses small people."""


class PrepareRecipe(DataRecipe):
    """The sections of a recipe that `vdsm prepare` reads."""

    source: SourceConfig = SourceConfig(name="videos")
    prepare: PrepareConfig = PrepareConfig()

    @property
    def min_length_s(self) -> float | None:
        """Shortest part in seconds, or None if it is a number of frames, `source.videos.clip_frames`."""
        videos = self.source.videos
        if self.prepare.min_length_s is not None:
            return self.prepare.min_length_s
        return None if videos.fps is None else videos.clip_frames / videos.fps
