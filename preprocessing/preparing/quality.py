"""Scores of a crop: sharpness, size, compression."""

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.preparing.boxes import Box

SIDE = 128
"""Side at which sharpness is measured, in pixels; larger crops are made smaller, smaller ones are not enlarged."""


def sharpness(frame: NDArray[np.uint8], box: Box) -> float:
    """Return the variance of the Laplacian of a crop of a frame, uint8 [H, W, 3]; a blurred one has a small value."""
    left, top, width, height = (round(value) for value in box)
    crop = frame[max(0, top) : top + height, max(0, left) : left + width]
    if min(crop.shape[:2]) < 3:
        return 0.0
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if max(grey.shape) > SIDE:
        scale = SIDE / max(grey.shape)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
