"""Reading the header of a .npy without trusting it."""

import io
import math
import struct
import tokenize
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

MAX_HEADER = 65_536
"""Longest accepted header, in bytes. NumPy itself reads the up to 4 GB that a file states before it refuses them."""


@dataclass(frozen=True)
class ArrayHeader:
    """Shape, data type and position of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    """Offset of the values from the start of the .npy, in bytes."""

    @property
    def values_bytes(self) -> int:
        """Length of the values, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> ArrayHeader:
    """Return the header at the start of a .npy. What it claims about the values may still be untrue.

    Raises:
        ValueError: there is no valid header.
    """
    version = np.lib.format.read_magic(file)
    length = struct.Struct("<H" if version == (1, 0) else "<I")
    stated = file.read(length.size)
    start = file.tell()
    size = length.unpack(stated)[0] if len(stated) == length.size else 0
    if size > MAX_HEADER:
        raise ValueError(f"its header has {size} bytes; at most {MAX_HEADER} are accepted")
    header = io.BytesIO(stated + file.read(size))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files written by Python 2, which the user can do nothing about
            shape, fortran, dtype = read(header)
    except (tokenize.TokenError, SyntaxError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"invalid header: {error}") from None
    except (RecursionError, MemoryError):  # of the parser, for deeply nested brackets
        raise ValueError("invalid header: nested too deeply") from None
    if not dtype.itemsize:
        raise ValueError(f"values of type {dtype} have no bytes")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape) or math.prod(shape) >= 2**63:
        raise ValueError(f"invalid shape {shape}"[:100])
    return ArrayHeader(shape, dtype, fortran, start + size)
