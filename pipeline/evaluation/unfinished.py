"""Results of a scoring that has not finished yet, as files in the folder `unfinished` of its output."""

import hashlib
import json
import logging
import shutil
from typing import Any

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError

log = logging.getLogger(__name__)

FOLDER = "unfinished"


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
        """Remove everything, once the scoring is finished."""
        folder = storage.join(self._out, FOLDER)
        if not storage.is_s3(folder):
            shutil.rmtree(folder, ignore_errors=True)
            return
        for name in storage.list_files(folder):
            storage.delete(storage.join(folder, name))

    def _url(self, name: str) -> str:
        return storage.join(self._out, FOLDER, f"{self._key}-{name}.bin")
