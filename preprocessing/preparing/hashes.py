"""Perceptual hashes of frames, by ImageHash: 64 bits that hardly change with size, codec and compression."""

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

VARIANTS = 8
"""Hashes of a frame: the frame, and as it looks when turned by quarters and mirrored."""
FLAT = 8.0
"""Standard deviation, in grey levels, below which a frame shows nothing that could be recognised."""


def hash_frame(frame: NDArray[np.uint8]) -> list[str]:
    """Return the hashes of a frame, uint8 [H, W, 3], in hexadecimal, the upright one first; none if it is flat."""
    grey = Image.fromarray(frame).convert("L").resize((64, 64), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    if float(pixels.std()) < FLAT:
        return []
    turned = [np.rot90(side, quarters) for side in (pixels, pixels[:, ::-1]) for quarters in range(4)]
    return [str(imagehash.phash(Image.fromarray(np.ascontiguousarray(one)))) for one in turned]
