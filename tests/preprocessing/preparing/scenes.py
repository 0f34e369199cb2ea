"""Drawn scenes: somebody who waves, walks or stands before a background, and videos of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.preparing.boxes import Box
from preprocessing.preparing.config import PrepareConfig
from preprocessing.preparing.detectors import FaceFinder
from preprocessing.preparing.examine import Examination
from preprocessing.preparing.scan import ScanSource
from preprocessing.sources.config import VideosConfig
from tests.preprocessing.video_files import write_video

Rgb = NDArray[np.uint8]
WIDTH, HEIGHT = 320, 240
WAVER: Box = (120.0, 70.0, 76.0, 120.0)
"""What the waver of `waving` covers over time: body, legs and the arm at its highest, lowest and outermost."""


def background(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Rgb:
    """Return a coarse random texture."""
    coarse = np.random.default_rng(seed).integers(60, 200, (height // 20, width // 20, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def waving(count: int = 40, *, seed: int = 0, noise: float = 0.0) -> list[Rgb]:
    """Return frames of somebody who sways a little and waves one arm, at `WAVER`."""
    rng = np.random.default_rng(seed + 1)
    still = background(seed)
    frames = []
    for number in range(count):
        frame = still.copy()
        sway = round(1.5 * np.sin(number / 3))
        cv2.rectangle(frame, (128 + sway, 88), (152 + sway, 140), (20, 20, 30), -1)
        cv2.rectangle(frame, (130 + sway, 141), (150 + sway, 189), (40, 30, 20), -1)
        cv2.circle(frame, (140 + sway, 78), 8, (190, 140, 110), -1)
        angle = np.pi / 3 * np.sin(number / 2)
        tip = round(152 + 42 * np.cos(angle)), round(96 - 26 * np.sin(angle))
        cv2.line(frame, (152 + sway, 96), tip, (20, 20, 30), 7)
        frames.append(noisy(frame, rng, noise))
    return frames


def walking(count: int = 40, *, seed: int = 0) -> list[Rgb]:
    """Return frames of somebody who crosses the picture from left to right."""
    still = background(seed)
    frames = []
    for number in range(count):
        frame = still.copy()
        left = 10 + 7 * number
        cv2.rectangle(frame, (left, 100), (left + 20, 170), (20, 20, 30), -1)
        frames.append(frame)
    return frames


def standing(count: int = 40, *, seed: int = 0) -> list[Rgb]:
    """Return frames in which nothing moves."""
    return [background(seed)] * count


def noisy(frame: Rgb, rng: np.random.Generator, deviation: float) -> Rgb:
    """Return a frame with Gaussian noise, in grey levels."""
    if not deviation:
        return frame
    return np.clip(frame + rng.normal(0, deviation, frame.shape[:2])[..., None], 0, 255).astype(np.uint8)


def write(path: Path, frames: Sequence[Rgb], **options: Any) -> Path:
    """Encode frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, list(frames), options={"preset": "ultrafast", "crf": "18"}, **options)


def examine(path: Path, **settings: Any) -> dict[str, Any]:
    """Return the record of one video, read in this process."""
    segments = settings.pop("segments", [(0.0, None, None)])
    config = PrepareConfig(**({"detector": "motion"} | settings))
    source = ScanSource(str(path), VideosConfig(), config.analysis_size)
    (item,) = source.inputs()
    examination = Examination(config, min_length_s=None, min_frames=16, segments=segments, faces=FaceFinder())
    for chunk in source.clips(item):
        examination.add(chunk)
    return examination.record()
