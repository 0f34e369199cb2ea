"""Read NumPy files without unpickling: list the arrays of a .npy or .npz file, and map their values into memory.

NumPy stores an array of Python objects as a pickle, and loading a pickle runs whatever code it contains. The header
states the data type, so such arrays are rejected before any of their values are read.
"""

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.scratch import REMEDY, lasting_folder, scratch_root
from preprocessing.npy_header import ArrayHeader, read_header

_LOCAL_HEADER = 30
FREE_BYTES, MAX_RATIO = 64_000_000, 100
"""A packed array may unpack to so many bytes, or to so many times its packed bytes. Deflate packs up to a thousand
bytes of zeros into one, which would fill the disk."""


class DamagedArrayError(Exception):
    """The file is not a NumPy file, or is truncated; the message is a short reason."""


class PythonObjectsError(UserError):
    """An array contains Python objects."""


class ArrayFile:
    """The arrays of one file.

    Args:
        url: a .npy file, whose array has the name `""`, or a .npz file. From S3 it is downloaded to a temporary file.

    Raises:
        DamagedArrayError: the file is neither.
        PythonObjectsError: an array contains Python objects.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._path = Path(url)
        self._unpacked: dict[str, IO[bytes]] = {}
        if storage.is_remote(url):
            self._path = self._folder() / "file"
            storage.download(url, self._path)
        try:
            storage.open_file(self._path).close()  # refuses a pipe, which would block
            self.headers = dict(self._read_headers())
        except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DamagedArrayError(f"it is no NumPy file that can be read ({error})"[:300]) from None
        except OSError as error:  # also of a seek to an invalid offset that the file itself states
            if os_errors.cause_of(error, of_input=True) != "input":
                os_errors.explain(url, error)
            raise DamagedArrayError(f"it is no NumPy file that can be read ({error.strerror})") from None

    def _folder(self) -> Path:
        """Return the folder for temporary files, which is made when it is first needed."""
        if self._scratch is None:
            self._scratch = lasting_folder("vdsm-arrays-")
        return Path(self._scratch.name)

    @property
    def path(self) -> Path:
        """The file, or its copy on this machine."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._path.stat().st_size

    def sha256(self) -> str:
        """Return the SHA-256 of the file."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def array(self, name: str) -> NDArray[Any]:
        """Return a read-only view of an array. An array of a compressed .npz is unpacked to a temporary file.

        Raises:
            DamagedArrayError: the file holds fewer values than its header states.
        """
        self.check(name)
        header = self.headers[name]
        file, offset = self._locate(name)
        start = offset + header.offset
        _check_length(header, os.fstat(file.fileno()).st_size - start)
        order: Any = "F" if header.fortran else "C"
        try:
            if not header.values_bytes:
                return np.empty(header.shape, header.dtype)
            values: NDArray[Any] = np.memmap(file, header.dtype, "r", start, header.shape, order)
        except ValueError as error:  # more dimensions, or longer ones, than NumPy can address
            raise DamagedArrayError(f"its array cannot be mapped ({error})") from None
        return values

    def check(self, name: str) -> None:
        """Compare the length that a header states with that of the stored values, without unpacking them.

        Raises:
            DamagedArrayError: there are fewer values, or packed ones that would unpack to far more bytes.
        """
        header = self.headers[name]
        if not name and "" in self.headers:
            _check_length(header, self.size_bytes - header.offset)
            return
        with zipfile.ZipFile(self._path) as archive:
            member = archive.getinfo(f"{name}.npy")
        _check_length(header, member.file_size - header.offset)
        packed = min(member.compress_size, self.size_bytes)
        if member.file_size > max(FREE_BYTES, MAX_RATIO * packed) or member.file_size > 11 * MAX_RATIO * packed:
            raise DamagedArrayError(
                f"its {packed} packed bytes would unpack to {member.file_size}; if you trust the file, save it by "
                "numpy.savez, without compression"
            )

    def verify(self, name: str) -> None:
        """Read an array of a .npz and compare its bytes with their checksum.

        Raises:
            DamagedArrayError: they differ, or some are missing.
        """
        self.check(name)
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
                while file.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise DamagedArrayError(f"its array {name} cannot be read ({error})") from None

    def _read_headers(self) -> Iterator[tuple[str, ArrayHeader]]:
        with self._path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                yield "", self._read_header("", file)
                return
        with zipfile.ZipFile(self._path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise ValueError("it is packed by a method that NumPy does not write")
                    with archive.open(member) as file:
                        name = member.filename.removesuffix(".npy")
                        yield name, self._read_header(name, file)

    def _read_header(self, name: str, file: IO[bytes]) -> ArrayHeader:
        header = read_header(file)
        if header.dtype.hasobject:
            array = f"the array {name} of {self.url}" if name else self.url
            raise PythonObjectsError(
                f"{array} contains Python objects; reading them means unpickling, which can run any code. If you trust "
                "the file, convert it: `x = numpy.load(FILE, allow_pickle=True)`, then `numpy.savez(NEW, "
                "images=numpy.concatenate(list(x['images'])), lengths=[len(one) for one in x['images']], "
                "labels=x['labels'].astype(int))`"
            )
        return header

    def _locate(self, name: str) -> tuple[IO[bytes], int]:
        """Return the file that holds the .npy of an array, and its offset in that file."""
        if not name and "" in self.headers:
            return storage.open_file(self._path), 0
        with zipfile.ZipFile(self._path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                file = storage.open_file(self._path)
                file.seek(member.header_offset)
                local = file.read(_LOCAL_HEADER)
                lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
                return file, member.header_offset + _LOCAL_HEADER + lengths
            if name not in self._unpacked:
                self._unpacked[name] = _unpack(archive, member)
            return self._unpacked[name], 0


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """Unpack a file to one without a name, which leaves nothing behind when this process is killed."""
    with os_errors.explained(scratch_root(), REMEDY):
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - stays open
    try:
        with os_errors.explained(scratch_root(), REMEDY), archive.open(member) as packed:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        unpacked.close()
        raise DamagedArrayError(f"its array {member.filename} cannot be unpacked ({error})") from None
    unpacked.flush()
    return unpacked


def _check_length(header: ArrayHeader, available: int) -> None:
    if header.values_bytes > available:
        raise DamagedArrayError(f"it is cut short: the values of {header.shape} {header.dtype} are not all there"[:300])
