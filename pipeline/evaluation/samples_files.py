"""The .npz files in which another system hands over its samples."""

import hashlib
import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from vdsm.evaluation.samples import Samples


def read_samples(folder: str, name: str, shape: tuple[int, ...], digest: "hashlib._Hash") -> Samples:
    """Return the samples of one file, and add its name and content to a hash.

    Args:
        folder: URL of its folder.
        name: its path inside the folder.
        shape: expected shape of a clip, (T, H, W, C).
        digest: hash over all files.

    Raises:
        UserError: the file is damaged, or contains Python objects or other arrays.
    """
    url = storage.join(folder, name)
    data = storage.read_bytes(url)
    digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            members = [arrays[key] for key in ("frames", "dynamics_of", "static_of")]
        if not all(isinstance(array, np.ndarray) for array in members):
            raise ValueError("a member is not an array")  # numpy returns its bytes
        frames, dynamics_of, static_of = members
    except KeyError as error:
        raise UserError(f"{url}: {error.args[0]!s}; it must have frames, dynamics_of and static_of") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{url}: is not an .npz file of plain arrays ({reason}); write it again") from None
    if frames.dtype != np.uint8 or frames.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise UserError(f"{url}: frames are {frames.dtype} {list(frames.shape)}, not uint8 [N, {expected}]")
    donors = zip(_keys(url, dynamics_of, frames), _keys(url, static_of, frames), strict=True)
    return Samples(frames, list(donors))


def _keys(url: str, values: NDArray[Any], frames: NDArray[np.uint8]) -> list[str]:
    if values.dtype.kind != "U" or values.shape != (len(frames),):
        raise UserError(
            f"{url}: donor keys are {values.dtype} {list(values.shape)}, not one string (numpy dtype <U) for each of "
            f"the {len(frames)} clips"
        )
    return [str(value) for value in values]
