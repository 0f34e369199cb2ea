"""The files of an exported model, and how large each may be: one rule for the Hub, S3 and local folders.

Sizes are checked before a file is fetched, so that neither memory nor disk is filled by something that is no model.
"""

from collections.abc import Iterable
from pathlib import Path

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError

CONFIG, WEIGHTS = REQUIRED = ("config.json", "model.safetensors")
LARGEST = {
    WEIGHTS: 1 << 36,
    "README.md": 1 << 24,
    "sample.gif": 1 << 28,
    "encode.pt2": 1 << 36,
    "decode.pt2": 1 << 36,
    "encode.onnx": 1 << 36,
    "decode.onnx": 1 << 36,
    CONFIG: 1 << 20,
}
"""File of an exported model -> its largest accepted size in bytes; in the order in which they are written, of which the
last makes a folder complete. Nothing else is sent or fetched."""
FILES = tuple(LARGEST)


def check_size(source: str, name: str, size: int | None) -> None:
    """Check the size of a file of `source` before it is read.

    Raises:
        UserError: it is too large, or not known.
    """
    if size is None:
        raise UserError(f"{source}/{name}: its size is not stated, so it is not fetched; push the model again")
    if size > LARGEST[name]:
        raise UserError(
            f"{source}/{name}: has {size:,} bytes, and the limit is {LARGEST[name]:,}; it is no file of `vdsm export`"
        )


def check_folder(folder: Path, source: str) -> None:
    """Check the sizes of the files in a local folder; see `check_size`."""
    for name in FILES:
        if (folder / name).is_file():
            check_size(source, name, (folder / name).stat().st_size)


def fetch_from_s3(url: str, folder: Path, names: Iterable[str] = FILES) -> None:
    """Copy files of a model in S3 to a local folder, those that exist.

    Raises:
        UserError: a file is too large, or one of `REQUIRED` is missing.
    """
    for name in names:
        path = storage.join(url, name)
        try:
            check_size(url, name, storage.size(path))
            storage.download(path, folder / name)
        except MissingFileError:
            if name in REQUIRED:
                raise UserError(f"{url}: has no {name}; export the model again") from None
