"""NumPy files without pickles: which arrays are in a .npy or .npz, and their values, mapped into memory.

NumPy stores an array of Python objects as a pickle, and loading a pickle runs whatever code it holds. The header tells
what an array is made of, so such arrays are refused before anything of them is read.
"""

import tempfile
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
    """The file is no array file, or cut short; the message is a short reason."""


@dataclass(frozen=True)
class Header:
    """What an array is made of."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    """Where its values begin, in bytes from the beginning of its .npy."""


class ArrayFile:
    """The arrays of one file.

    Args:
        url: a .npy, whose array gets the name `""`, or a .npz; from S3 it is copied to a temporary file.

    Raises:
        DamagedArrayError: it is neither.
        UserError: an array holds Python objects.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = tempfile.TemporaryDirectory(prefix="vdsm-arrays-")  # goes with this object
        self._path = Path(url)
        if storage.is_s3(url):
            self._path = Path(self._folder.name) / "file"
            storage.download(url, self._path)
        try:
            self.headers = dict(self._read_headers())
        except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DamagedArrayError(f"it is no NumPy file that can be read ({error})".replace("\n", " ")) from None

    def array(self, name: str) -> NDArray[Any]:
        """The values of an array, to be read only; those of a compressed .npz are unpacked to a temporary file.

        Raises:
            DamagedArrayError: there are fewer than its header says.
        """
        header = self.headers[name]
        path, offset = self._place(name)
        needed = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
        if path.stat().st_size < offset + header.offset + needed:
            raise DamagedArrayError(f"it is cut short: the values of {header.shape} {header.dtype} are not all there")
        if not needed:
            return np.empty(header.shape, header.dtype)
        order = "F" if header.fortran else "C"
        begin = offset + header.offset
        values: NDArray[Any] = np.memmap(path, header.dtype, "r", begin, header.shape, order)  # type: ignore[call-overload]
        return values

    def _read_headers(self) -> Iterator[tuple[str, Header]]:
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

    def _read_header(self, name: str, file: IO[bytes]) -> Header:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            what = f"the array {name} of {self.url}" if name else self.url
            raise UserError(
                f"{what} holds Python objects, which only unpickling would read, and that can run any code; where you "
                "trust the file, write it anew: `x = numpy.load(FILE, allow_pickle=True)`, then `numpy.savez(NEW, "
                "images=numpy.concatenate(list(x['images'])), lengths=[len(one) for one in x['images']], "
                "labels=x['labels'].astype(int))`"
            )
        return Header(shape, dtype, fortran, file.tell())

    def _place(self, name: str) -> tuple[Path, int]:
        """The file that holds the .npy of an array, and where that begins in it."""
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
            unpacked = Path(self._folder.name) / f"{list(self.headers).index(name)}.npy"
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
