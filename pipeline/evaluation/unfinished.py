"""Results of a scoring that has not finished yet, as files in a folder of its output."""

import contextlib
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError

log = logging.getLogger(__name__)

FOLDER = "unfinished-scoring"
_NAME = re.compile(r"[0-9a-f]{16}-[\w-]+\.bin")


class UnfinishedScoring:
    """Keeps the results of one scoring until it is finished; a `vdsm.evaluation.finished.FinishedWork`.

    Args:
        out: URL of the folder of the report.
        inputs: all that the results depend on. Another scoring into the same folder does not see them.
    """

    def __init__(self, out: str, inputs: dict[str, Any]) -> None:
        self._out = out
        self._key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def get(self, name: str) -> bytes | None:
        """Return what was kept under a name, or None if there is nothing intact."""
        url = self._url(name)
        try:
            content = storage.read_bytes(url)
        except MissingFileError:
            return None
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            log.warning("%s: is damaged; computing it again", url)
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a result."""
        storage.write_bytes(self._url(name), hashlib.sha256(data).digest() + data)

    def remove(self) -> None:
        """Remove everything that any scoring into this output has kept."""
        folder = storage.join(self._out, FOLDER)
        if not storage.is_remote(folder) and not Path(folder).is_dir():
            return
        storage.remove_partial_files(folder)
        for name in storage.list_files(folder):
            if _NAME.fullmatch(name):
                storage.delete(storage.join(folder, name))
        if not storage.is_remote(folder):
            with contextlib.suppress(OSError):  # it holds something else
                Path(folder).rmdir()

    def _url(self, name: str) -> str:
        return storage.join(self._out, FOLDER, f"{self._key}-{name}.bin")
