"""Work divided into Ray tasks, a limited number of them at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from cluster.errors import UserError, first_line

T = TypeVar("T")

MAX_RETRIES = 10
"""How many times Ray retries a task whose worker died."""


def run_tasks(start: Callable[[T], Any], inputs: Iterable[T], limit: int) -> Iterator[tuple[T, Any]]:
    """Start a task for each input, at most `limit` at once, and yield each input with its result when it is finished.

    Ray must be connected.

    Args:
        start: starts the task of an input, and returns the reference to its result.
        inputs: what the tasks work on.
        limit: number of tasks at the same time.

    Raises:
        UserError: raised in a task; or Ray itself failed.
    """
    import ray

    waiting, running = deque(inputs), dict[Any, T]()
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                item = waiting.popleft()
                running[start(item)] = item
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in done:
                yield running.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise UserError(f"Ray failed ({first_line(error):.200}); rerun the same command to resume") from None
