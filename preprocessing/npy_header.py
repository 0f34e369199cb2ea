"""Reading the header of a .npy without trusting it."""

import math
import tokenize
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np


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
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files written by Python 2, which the user can do nothing about
            shape, fortran, dtype = read(file)
    except (tokenize.TokenError, SyntaxError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"invalid header: {error}") from None
    except (RecursionError, MemoryError):  # of the parser, for deeply nested brackets
        raise ValueError("invalid header: nested too deeply") from None
    if not dtype.itemsize:
        raise ValueError(f"values of type {dtype} have no bytes")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape) or math.prod(shape) >= 2**63:
        raise ValueError(f"invalid shape {shape}"[:100])
    return ArrayHeader(shape, dtype, fortran, file.tell())
