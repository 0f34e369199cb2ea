"""Detectors of faces and of upright people, with the models that come with OpenCV or a face model of the user's."""

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.preparing.boxes import Box, inside

Grey = NDArray[np.uint8]
Rgb = NDArray[np.uint8]

SMALLEST_FACE = 0.08
"""Smallest face that the cascades look for, as a share of the shorter side of the frame."""
CASCADE_SIDE = 400
"""Longer side at which the cascades look for faces, in pixels; their time grows with the number of pixels."""
_MIN_SCORE = 0.7
_PERSON_SCORE = 0.4
_HOG_MARGIN = 0.12
"""Share of a window of the people detector that is border, on each side."""


class FaceFinder:
    """Finds faces in a frame.

    Args:
        model: URL of a YuNet model (.onnx), or None for OpenCV's cascades.

    Raises:
        UserError: the model does not exist, or is none.
    """

    def __init__(self, model: str | None = None) -> None:
        self._yunet: Any = None
        if model is not None:
            data = np.frombuffer(storage.read_bytes(model), np.uint8)
            try:
                self._yunet = cv2.FaceDetectorYN.create("onnx", data, np.empty(0, np.uint8), (320, 320), _MIN_SCORE)
            except cv2.error as error:
                raise UserError(
                    f"{model} is not a face model that OpenCV can load ({error.err}); pass a YuNet file (.onnx) with "
                    "--prepare.face-model"
                ) from None
        else:
            self._frontal = _cascade("haarcascade_frontalface_alt2.xml")
            self._profile = _cascade("haarcascade_profileface.xml")

    def find(self, frame: Rgb) -> list[Box]:
        """Return the boxes of faces, from brow to chin, in a frame, uint8 [H, W, 3]."""
        height, width = frame.shape[:2]
        if self._yunet is not None:
            self._yunet.setInputSize((width, height))
            _, found = self._yunet.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            return [] if found is None else [tuple(float(value) for value in one[:4]) for one in found]  # type: ignore[misc]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, CASCADE_SIDE / max(height, width))
        grey = cv2.equalizeHist(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        side = max(20, round(SMALLEST_FACE * min(grey.shape)))
        options: dict[str, Any] = {"scaleFactor": 1.15, "minNeighbors": 5, "minSize": (side, side)}
        boxes = _boxes(self._frontal.detectMultiScale(grey, **options))
        if not boxes:
            boxes = _boxes(self._profile.detectMultiScale(grey, **options))
            mirrored = _boxes(self._profile.detectMultiScale(cv2.flip(grey, 1), **options))
            boxes = _distinct(boxes + [(grey.shape[1] - box[0] - box[2], *box[1:]) for box in mirrored])
        return [(left / scale, top / scale, wide / scale, high / scale) for left, top, wide, high in boxes]


def find_people(frame: Rgb) -> list[Box]:
    """Return the boxes of upright people in a frame, uint8 [H, W, 3]."""
    height, width = frame.shape[:2]
    if height < 128 or width < 64:
        return []
    found, weights = _people().detectMultiScale(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), winStride=(8, 8), padding=(16, 16), scale=1.08
    )
    ranked = sorted(zip((float(weight) for weight in np.ravel(weights)), _boxes(found)), reverse=True)
    return _distinct([_without_border(box) for weight, box in ranked if weight >= _PERSON_SCORE])


def _without_border(box: Box) -> Box:
    left, top, width, height = box
    across, down = 1.5 * _HOG_MARGIN * width, 0.5 * _HOG_MARGIN * height
    return left + across, top + down, width - 2 * across, height - 2 * down


def _distinct(boxes: list[Box]) -> list[Box]:
    """Leave out boxes that lie in an earlier one for the most part, or hold one."""
    kept: list[Box] = []
    for box in boxes:
        if all(max(inside(box, other), inside(other, box)) < 0.6 for other in kept):
            kept.append(box)
    return kept


def _boxes(found: Any) -> list[Box]:
    return [tuple(float(value) for value in one) for one in found]  # type: ignore[misc]


@functools.cache
def _people() -> Any:
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return hog


def _cascade(name: str) -> Any:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + name)  # type: ignore[attr-defined]
    if cascade.empty():
        raise UserError(f"OpenCV's {name} is missing; reinstall opencv-python-headless")
    return cascade
