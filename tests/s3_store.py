"""The S3 server of a test session, which tests may kill and restart."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from cluster.development.s3_server import S3Server, serve

ACCESS_KEY, SECRET = "test-key", "test-secret-Zq81"
READER, READERS_SECRET = "reader", "reader-secret-Lm20z"
"""A second identity, which can read and list but not write."""


class S3Store:
    """A running server; restarted, it has the same endpoint, keys and objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        # The server ends with the thread that started it, which may not be one of a test.
        self._starter = ThreadPoolExecutor(1)
        self.server = self.start()

    def start(self) -> S3Server:
        server = serve(self._folder, access_key=ACCESS_KEY, secret_key=SECRET, read_only=(READER, READERS_SECRET))
        self.server = self._starter.submit(self._running.enter_context, server).result()
        return self.server

    def kill(self) -> None:
        """Kill the server as `kill -9` does."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Stop the server, if it runs."""
        self._running.close()
