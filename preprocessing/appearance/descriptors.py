"""Descriptors of a clip's appearance that know nothing of its motion: how often a colour or a texture occurs.

All frames are counted together and positions are forgotten, so two clips of the same person are close whatever the
person does. Each descriptor is an inductive bias: `colour` takes people to be told apart by the colours they wear,
`texture` by the small patterns that occur in them, such as the strokes of a digit.

Every step is exact in integers or correctly rounded, so the same frames give the same bytes on every machine.

Letters: T frames, H W image, C channels.
"""

import functools
import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from preprocessing.npy_header import read_header
from preprocessing.spread import evenly_spread

Name = Literal["colour", "texture"]
NAMES: tuple[Name, ...] = get_args(Name)
VERSION = 1
"""Version of the descriptors; raise it when their values change."""
SIZE = 128
"""Values of a descriptor."""

Descriptor = NDArray[np.int16]
"""[SIZE]: a unit vector times SCALE, or zeros if there was nothing to count."""
SCALE = 2**15 - 1
Descriptors = NDArray[np.int16]
"""[N, SIZE], those of N clips."""
COLOUR_BITS = 4
"""Bits kept of each channel."""
COMPARISONS = 9
PATCH = 5
"""Side of a patch, in pixels."""
FLAT = 32
"""A patch is flat if no comparison finds a larger difference, of 255."""
MAX_FRAMES = 16
MAX_SIDE = 96
"""Of frames with a longer side, in pixels, every second pixel is read, or every third, and so on."""


def describe(name: Name, frames: NDArray[np.uint8]) -> Descriptor:
    """Return a descriptor of a clip, uint8 [T, H, W, C]."""
    return _project(colour_counts(frames) if name == "colour" else texture_counts(frames))


def usual(channels: int) -> Name:
    """Return the descriptor that suits frames with this number of channels."""
    return "texture" if channels == 1 else "colour"


def to_npy(descriptors: Descriptors) -> bytes:
    """Return the content of a .npy."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(descriptors, dtype="<i2"), version=(1, 0))
    return buffer.getvalue()


def from_npy(data: bytes, clips: int) -> Descriptors:
    """Return the descriptors of `clips` clips.

    Raises:
        ValueError: they are something else.
    """
    header = read_header(io.BytesIO(data))
    is_expected = header.shape == (clips, SIZE) and header.dtype == np.dtype("<i2") and not header.fortran
    if not is_expected or len(data) != header.offset + header.values_bytes:
        raise ValueError(f"it does not hold {clips} descriptors of {SIZE} values")
    return np.frombuffer(data, dtype="<i2", offset=header.offset).reshape(clips, SIZE).astype(np.int16)


def colour_counts(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many pixels have each colour, [16^C] for the first three channels. The most frequent one, the
    background, counts as much as the second.

    Source: Swain and Ballard, Color indexing, IJCV 1991.
    """
    shown = frames[..., :3] >> (8 - COLOUR_BITS)
    code = np.zeros(shown.shape[:-1], dtype=np.int64)
    for channel in range(shown.shape[-1]):
        code = code << COLOUR_BITS | shown[..., channel]
    counts = np.bincount(code.ravel(), minlength=1 << COLOUR_BITS * shown.shape[-1])
    second, first = np.partition(counts, -2)[-2:]
    counts[counts == first] = second
    return counts


def texture_counts(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many patches of 5x5 pixels have each pattern, [512]; flat patches are left out.

    A pattern is the outcome of nine comparisons of two pixels of the patch.

    Source: BRIEF (Calonder et al., ECCV 2010), here counted as words.
    """
    chosen = evenly_spread(len(frames), MAX_FRAMES)
    step = -(-max(frames.shape[1:3]) // MAX_SIDE)
    shown = grey(frames[chosen, ::step, ::step])
    height, width = (max(side - PATCH + 1, 0) for side in shown.shape[1:])
    word = np.zeros((len(shown), height, width), dtype=np.int16)
    is_textured = np.zeros(word.shape, dtype=bool)
    for bit, ((y1, x1), (y2, x2)) in enumerate(_comparisons()):
        difference = shown[:, y1 : y1 + height, x1 : x1 + width] - shown[:, y2 : y2 + height, x2 : x2 + width]
        word |= (difference > 0).astype(np.int16) << bit
        is_textured |= np.abs(difference) > FLAT
    return np.bincount(word[is_textured], minlength=1 << COMPARISONS)


def grey(frames: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the grey levels of frames [T, H, W, C]: [T, H, W]."""
    if frames.shape[-1] < 3:
        return frames[..., 0].astype(np.int16)
    weights = np.array([77, 150, 29], dtype=np.int32)  # ITU-R BT.601, in parts of 256
    return (frames[..., :3] @ weights >> 8).astype(np.int16)


@functools.cache
def _comparisons() -> list[list[tuple[int, int]]]:
    """Return the nine pairs of pixels, (y, x) each."""
    generator = np.random.Generator(np.random.PCG64(1))
    drawn = [generator.permutation(PATCH**2)[:2].tolist() for _ in range(COMPARISONS)]
    return [[divmod(pixel, PATCH) for pixel in pair] for pair in drawn]


def _project(counts: NDArray[np.int64]) -> Descriptor:
    """Return the square roots of the shares, projected at random and scaled to length SCALE.

    Angles between square roots of histograms are their Hellinger distances, and random signs preserve angles
    (Achlioptas, Database-friendly random projections, 2003).
    """
    total = int(counts.sum())
    if not total:
        return np.zeros(SIZE, dtype=np.int16)
    roots = np.rint(np.sqrt(counts / total) * 2**15)
    present = np.flatnonzero(roots)
    projected = roots[present] @ _signs(len(counts))[present]
    length = np.sqrt((projected * projected).sum())
    descriptor: Descriptor = np.rint(projected * (SCALE / length)).astype(np.int16)
    return descriptor


@functools.cache
def _signs(bins: int) -> NDArray[np.float64]:
    bits = np.random.Generator(np.random.PCG64(0)).integers(0, 2, (bins, SIZE), dtype=np.int8)
    return bits.astype(np.float64) * 2 - 1
