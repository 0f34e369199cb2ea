"""Small pictures of frames, for the page."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 240
"""Longer side of a picture, in pixels."""


def make_still(frame: NDArray[np.uint8], time: float) -> dict[str, Any]:
    """Return a frame, uint8 [H, W, 3], as a JPEG in base64, with its time in seconds."""
    image = Image.fromarray(frame)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return {"time": round(time, 6), "jpeg": base64.b64encode(data.getvalue()).decode()}
