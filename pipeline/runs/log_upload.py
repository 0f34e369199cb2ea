"""Logs that grow, in S3, where no object can be appended to: the log up to some line, and parts that follow it.

    metrics.jsonl                        complete when the training has ended; until then, its first half or more
    metrics.jsonl.parts/<id>-000000      what follows, in the order of the names; <id> is of the content that it follows

The log is uploaded as a whole while it is short, and again whenever the parts have become as long as what they follow.
All uploads together thus have at most four times the length of the log at its end, however often it is uploaded.
"""

import hashlib
from pathlib import Path

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
PARTS = ".parts"
WHOLE_BYTES = 256_000
"""A log up to this length is always uploaded as a whole."""
_READ_ATTEMPTS = 5


class GrowingLog:
    """The local copy of a log, and what of it is in S3.

    Args:
        path: the local file, which may not exist yet.
        url: its place in S3.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        self._stored = ""
        """Identity of what is stored at `url`; empty if that is not the start of this log."""
        self._whole = self._sent = self._parts = 0

    def rewritten(self) -> None:
        """Note that the local file was rewritten, not appended to."""
        self._stored = ""

    def upload(self, *, complete: bool = False) -> None:
        """Upload what is new, as a part or with all before it; `complete` leaves no parts."""
        length = self._path.stat().st_size if self._path.is_file() else 0
        if not length or (self._stored and length == self._sent and not (complete and self._parts)):
            return
        is_short = length <= WHOLE_BYTES or length > 2 * self._whole
        if complete or is_short or not self._stored:
            self._upload_whole(length)
            return
        with self._path.open("rb") as file:
            file.seek(self._sent)
            storage.write_bytes(_part(self._url, self._stored, self._parts), file.read(length - self._sent))
        self._sent, self._parts = length, self._parts + 1

    def _upload_whole(self, length: int) -> None:
        with self._path.open("rb") as file:
            content = file.read(length)
        storage.write_bytes(self._url, content)
        # Parts of another content, which no reader takes into account any more.
        folder = self._url + PARTS
        for name in storage.list_files(folder):
            storage.delete(storage.join(folder, name))
        self._stored, self._whole, self._sent, self._parts = _identity(content), length, length, 0


def read_log(url: str) -> bytes:
    """Return a log as far as it was uploaded.

    Raises:
        MissingFileError: there is none.
    """
    if not storage.is_remote(url):
        return storage.read_bytes(url)
    for attempt in range(_READ_ATTEMPTS):
        content = storage.read_bytes(url)
        folder, prefix = url + PARTS, f"{_identity(content)}-"
        parts = [name for name in storage.list_files(folder) if name.startswith(prefix)]
        try:
            return content + b"".join(storage.read_bytes(storage.join(folder, name)) for name in parts)
        except MissingFileError:  # uploaded as a whole meanwhile
            if attempt == _READ_ATTEMPTS - 1:
                raise
    raise AssertionError


def _identity(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _part(url: str, identity: str, number: int) -> str:
    return storage.join(url + PARTS, f"{identity}-{number:06d}")
