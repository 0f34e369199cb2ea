"""The .npz files in which another system hands over its samples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.sources.array_file import ArrayFile, DamagedArrayError, PythonObjectsError
from vdsm.evaluation.samples import Donors, Samples

ARRAYS = ("frames", "dynamics_of", "static_of")


@dataclass(frozen=True)
class SamplesFile:
    """A file of samples that was read and found intact."""

    url: str
    name: str
    """Its path in the folder of the samples."""
    sha256: str
    donors: list[Donors]

    @property
    def samples(self) -> Samples:
        """Return its samples, whose frames are read on demand."""
        return Samples(self.donors, self._frames)

    def _frames(self) -> NDArray[np.uint8]:
        """Return all frames, mapped into memory: uint8 [N, T, H, W, C].

        Raises:
            UserError: the file was changed since it was checked.
        """
        try:
            file = ArrayFile(self.url)
            if file.sha256() == self.sha256:
                return file.array("frames")
        except (DamagedArrayError, PythonObjectsError):
            pass
        raise UserError(f"{self.url} was changed while it was measured; rerun when all files are complete")


def read_samples_file(folder: str, name: str, shape: tuple[int, ...]) -> SamplesFile:
    """Read a file of samples completely, and check it.

    Args:
        folder: URL of its folder.
        name: its path inside the folder.
        shape: expected shape of a clip, (T, H, W, C).

    Raises:
        UserError: the file is damaged, or contains Python objects or other arrays.
    """
    url = storage.join(folder, name)
    try:
        file = ArrayFile(url)
        missing = [array for array in ARRAYS if array not in file.headers]
        if missing:
            found = ", ".join(filter(None, file.headers)) or "none"
            raise UserError(
                f"{url}: has no array {' and no array '.join(missing)} (found: {found}); write frames, dynamics_of and "
                "static_of with numpy.savez_compressed"
            )
        _check_frames(url, file, shape)
        for array in ARRAYS:
            file.verify(array)
        keys = [_keys(url, file, array) for array in ARRAYS[1:]]
    except PythonObjectsError:
        raise UserError(
            f"{url}: contains Python objects, which are not read; write plain arrays: frames as uint8, keys as strings "
            "(numpy dtype <U)"
        ) from None
    except DamagedArrayError as damage:
        raise UserError(f"{url}: is not an intact .npz file of plain arrays ({damage}); write it again") from None
    return SamplesFile(url, name, file.sha256(), list(zip(*keys, strict=True)))


def samples_sha256(files: Sequence[SamplesFile]) -> str:
    """Return a hash of the names and the content of all files."""
    return hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in files).encode()).hexdigest()


def _check_frames(url: str, file: ArrayFile, shape: tuple[int, ...]) -> None:
    header = file.headers["frames"]
    if header.dtype != np.uint8 or header.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        hint = "; convert floats from 0 to 1 with (255 * frames).round()" if header.dtype.kind == "f" else ""
        raise UserError(
            f"{url}: frames are {header.dtype} {list(header.shape)}, not uint8 [N, {expected}] with values from 0 to "
            f"255{hint}"
        )


def _keys(url: str, file: ArrayFile, name: str) -> list[str]:
    header, clips = file.headers[name], file.headers["frames"].shape[0]
    if header.dtype.kind != "U" or header.shape != (clips,):
        raise UserError(
            f"{url}: {name} is {header.dtype} {list(header.shape)}, not one string (numpy dtype <U) for each of the "
            f"{clips} clips"
        )
    try:
        return [str(key) for key in file.array(name).tolist()]
    except (ValueError, SystemError) as error:  # strings of NumPy need not be Unicode
        raise DamagedArrayError(f"{name} has a string that is not Unicode: {error}") from None
