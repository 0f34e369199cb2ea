"""What an object store offers: the functions of the modules `s3` and `cloud`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class ObjectStore(Protocol):
    """Objects by URL. Writes are complete or do not happen; versions are opaque, and compared only for equality."""

    def read_bytes(self, url: str) -> bytes:
        """Return the complete object; MissingFileError if there is none."""

    def read_range(self, url: str, start: int, length: int) -> bytes:
        """Return `length` bytes from offset `start`, or fewer at the end of the object."""

    def download(self, url: str, path: Path) -> None:
        """Write the complete object to the file `path`, all of it from one version."""

    def write_bytes(self, url: str, data: bytes) -> None:
        """Write an object in one request; behind a fence, only over the version that was there before the check."""

    def write_if(self, url: str, data: bytes, etag: str | None) -> str | None:
        """Write an object if it still has the version `etag` (None: if there is none); return its new version."""

    def read_with_etag(self, url: str) -> tuple[bytes, str]:
        """Return a small object and its version."""

    def upload(self, path: Path, url: str) -> None:
        """Upload a local file, and compare the length of what is stored."""

    def size(self, url: str) -> int:
        """Return the length of the object in bytes."""

    def delete(self, url: str) -> None:
        """Remove the object, if it exists."""

    def list_files(self, url: str) -> list[str]:
        """Return the sorted keys of all objects below `url`, relative to it."""

    def list_objects(self, url: str) -> Iterator[tuple[str, int, str]]:
        """Yield key relative to `url`, length in bytes and version of all objects below it, in order of their keys."""

    def head(self, url: str) -> tuple[int, str]:
        """Return length in bytes and version of the object."""

    def is_folder(self, url: str) -> bool:
        """Return whether `url` names a bucket, or cannot be one object."""
