"""Read NumPy files without unpickling: list the arrays of a .npy or .npz file, and map their values into memory.

NumPy stores an array of Python objects as a pickle, and loading a pickle runs whatever code it contains. The header
states the data type, so such arrays are rejected before any of their values are read.
"""

import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage

_LOCAL_HEADER = 30


class DamagedArrayError(Exception):
    """The file is not a NumPy file, or is truncated; the message is a short reason."""


@dataclass(frozen=True)
class ArrayHeader:
    """Shape, data type and position of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    """Offset of the values from the start of the .npy, in bytes."""


class ArrayFile:
    """The arrays of one file.

    Args:
        url: a .npy file, whose array has the name `""`, or a .npz file. From S3 it is downloaded to a temporary file.

    Raises:
        DamagedArrayError: the file is neither.
        UserError: an array contains Python objects.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = Path(tempfile.mkdtemp(prefix="vdsm-arrays-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._path = Path(url)
        if storage.is_s3(url):
            self._path = self._folder / "file"
            storage.download(url, self._path)
        try:
            self.headers = dict(self._read_headers())
        except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DamagedArrayError(f"it is no NumPy file that can be read ({error})".replace("\n", " ")) from None

    def array(self, name: str) -> NDArray[Any]:
        """Return a read-only view of an array. An array of a compressed .npz is unpacked to a temporary file.

        Raises:
            DamagedArrayError: the file holds fewer values than its header states.
        """
        header = self.headers[name]
        path, offset = self._locate(name)
        needed = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
        if path.stat().st_size < offset + header.offset + needed:
            raise DamagedArrayError(f"it is cut short: the values of {header.shape} {header.dtype} are not all there")
        if not needed:
            return np.empty(header.shape, header.dtype)
        order = "F" if header.fortran else "C"
        start = offset + header.offset
        values: NDArray[Any] = np.memmap(path, header.dtype, "r", start, header.shape, order)  # type: ignore[call-overload]
        return values

    def _read_headers(self) -> Iterator[tuple[str, ArrayHeader]]:
        with self._path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                yield "", self._read_header("", file)
                return
        with zipfile.ZipFile(self._path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        name = member.removesuffix(".npy")
                        yield name, self._read_header(name, file)

    def _read_header(self, name: str, file: IO[bytes]) -> ArrayHeader:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            array = f"the array {name} of {self.url}" if name else self.url
            raise UserError(
                f"{array} contains Python objects; reading them means unpickling, which can run any code. If you trust "
                "the file, convert it: `x = numpy.load(FILE, allow_pickle=True)`, then `numpy.savez(NEW, "
                "images=numpy.concatenate(list(x['images'])), lengths=[len(one) for one in x['images']], "
                "labels=x['labels'].astype(int))`"
            )
        return ArrayHeader(shape, dtype, fortran, file.tell())

    def _locate(self, name: str) -> tuple[Path, int]:
        """Return the file that holds the .npy of an array, and its offset in that file."""
        if not name and "" in self.headers:
            return self._path, 0
        with zipfile.ZipFile(self._path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                with self._path.open("rb") as file:
                    file.seek(member.header_offset)
                    local = file.read(_LOCAL_HEADER)
                lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
                return self._path, member.header_offset + _LOCAL_HEADER + lengths
            unpacked = self._folder / f"{list(self.headers).index(name)}.npy"
            if not unpacked.exists():
                partial = unpacked.with_suffix(".partial")
                try:
                    with archive.open(member) as packed, partial.open("wb") as file:
                        while block := packed.read(1 << 20):
                            file.write(block)
                except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                    raise DamagedArrayError(f"its array {name} cannot be unpacked ({error})") from None
                partial.rename(unpacked)
            return unpacked, 0
