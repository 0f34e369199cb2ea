"""The record of a worker's failure, written by Ray Train's controller.

It is a module of its own, without the model, because the controller's process imports it when a run starts.
"""

import contextlib
from typing import Any

import ray.train

from cluster.errors import without_credentials


class FailureLog(ray.train.UserCallback):
    """Reports worker failures to the coordinator, from Ray Train's controller, where an exception would end the run."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Report the error of the first rank that failed; called by Ray Train."""
        ranks = sorted(worker_exceptions)
        error = summary(worker_exceptions[ranks[0]]) if ranks else "no reason given"
        with contextlib.suppress(Exception):
            self._coordinator.push.remote({"kind": "event", "event": "failure", "ranks": ranks, "error": error})


def summary(error: BaseException) -> str:
    """Return the last line of an error in at most 200 characters: in a traceback, it states what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = without_credentials(lines[-1]) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
