"""The motion of the camera over a part: still, shaky (a hand holds it) or moving (it pans, zooms or is carried)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Affine = NDArray[np.float64]
"""[2, 3]: maps pixel coordinates of one frame to those of another."""

STILL, SHAKY = 0.004, 0.05
"""Largest displacement of a corner of the frame, as a share of its longer side, for a still and a shaky camera."""
MIN_POINTS = 12
GAIN = 0.9
"""Camera motion is only believed if it reduces the difference between frames to this share."""


@dataclass(frozen=True)
class CameraMotion:
    """How the camera moved."""

    kind: Literal["still", "shaky", "moving"]
    steps: list[Affine]
    """Map from each frame to the next one."""
    to_first: list[Affine]
    """Map from each frame to the first one."""

    def stabilized(self, frames: Sequence[Grey]) -> Sequence[Grey]:
        """Return the frames as if the camera had stayed where it was at the first one."""
        if self.kind == "still":
            return frames
        return [warped(frame, matrix) for frame, matrix in zip(frames, self.to_first)]


def warped(frame: Grey, matrix: Affine) -> Grey:
    """Return a frame in the coordinates to which `matrix` maps its own; the border is repeated."""
    height, width = frame.shape
    return cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def estimate_motion(frames: Sequence[Grey]) -> CameraMotion:
    """Return the motion of the camera over consecutive grey frames, uint8 [H, W] each."""
    height, width = frames[0].shape
    identity = np.eye(2, 3)
    steps: list[Affine] = []
    to_first: list[Affine] = [identity]
    for before, after in itertools.pairwise(frames):
        step = _motion(before, after)
        steps.append(identity if step is None else step)
        # Directly where the first frame still resembles this one, as errors of many small steps would add up.
        direct = _motion(after, frames[0])
        chained = _composed(to_first[-1], cv2.invertAffineTransform(steps[-1]).astype(np.float64))
        to_first.append(chained if direct is None else direct)
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64).T
    displaced = max(float(np.abs(matrix @ corners - corners[:2]).max()) for matrix in to_first) / max(width, height)
    # What fills the picture and moves is followed as well; it is not the camera then.
    if displaced <= STILL or not _explains(frames, to_first):
        return CameraMotion("still", [identity for _ in steps], [identity for _ in frames])
    return CameraMotion("shaky" if displaced <= SHAKY else "moving", steps, to_first)


def _motion(before: Grey, after: Grey) -> Affine | None:
    """Return the map from one frame to another, or None where too few points can be followed."""
    points = cv2.goodFeaturesToTrack(before, 200, 0.01, max(4, max(before.shape) // 40))
    if points is None or len(points) < MIN_POINTS:
        return None
    followed, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)  # type: ignore[call-overload]
    good = found.ravel() == 1
    if good.sum() < MIN_POINTS:
        return None
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(points[good], followed[good], ransacReprojThreshold=2.0)
    if matrix is None or inliers.sum() < max(MIN_POINTS, good.sum() // 2):
        return None
    return np.asarray(matrix, np.float64)


def _composed(outer: Affine, inner: Affine) -> Affine:
    full = np.vstack([inner, [0, 0, 1]])
    return np.asarray(outer @ full, np.float64)


def _explains(frames: Sequence[Grey], to_first: Sequence[Affine]) -> bool:
    """Return whether the estimated motion makes most of the picture stand still, from frame to frame."""
    moved = left = 0.0
    for index in np.linspace(1, len(frames) - 1, min(8, len(frames) - 1)).round().astype(int):
        before, after = frames[index - 1], frames[index]
        inverse = cv2.invertAffineTransform(to_first[index - 1]).astype(np.float64)
        moved += float(np.median(cv2.absdiff(before, after))) + float(cv2.absdiff(before, after).mean())
        aligned = cv2.absdiff(before, warped(after, _composed(inverse, to_first[index])))
        left += float(np.median(aligned)) + float(aligned.mean())
    return left < GAIN * moved
