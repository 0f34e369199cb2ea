"""The actor between the workers of a run and its driver.

It is a module of its own, without torch, because the actor's process imports it when a run starts.
"""

from typing import Any

import ray


@ray.remote(num_cpus=0)
class Coordinator:
    """Passes records from the workers to the driver, and the request to stop from the driver to the workers."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._stop = False
        self._user_error: str | None = None

    def push(self, record: dict[str, Any]) -> None:
        """Keep a record for the driver."""
        self._records.append(record)

    def take(self) -> list[dict[str, Any]]:
        """Return the records since the last call."""
        taken, self._records = self._records, []
        return taken

    def request_stop(self) -> None:
        """Have the workers save a checkpoint and stop."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Return whether the driver has requested the workers to stop."""
        return self._stop

    def set_user_error(self, message: str) -> None:
        """Keep the message of a user error; the first one counts."""
        self._user_error = self._user_error or message

    def user_error(self) -> str | None:
        """Return the message of the first user error, or none."""
        return self._user_error
