"""Fences: below a folder whose lock this process holds, each write first checks that it still holds it.

A process can be paused for longer than its lock lasts, by a suspended machine for instance. When it resumes, another
process may have taken the folder over, and its files must stay as they are.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

LOCK = ".lock"
"""Name of the lock in its folder. Writing the lock itself is not fenced."""


class Fence(NamedTuple):
    """A folder, and what raises an error if its lock was lost. Other processes that write there get a copy of it."""

    folder: str
    check: Callable[[], None]


_active: list[Fence] = []
_changing = threading.Lock()


@contextlib.contextmanager
def fenced(*fences: Fence) -> Iterator[None]:
    """Have every write of this process below the folders of `fences` checked within the block."""
    with _changing:
        _active.extend(fences)
    try:
        yield
    finally:
        with _changing:
            for fence in fences:
                _active.remove(fence)


def active_fences() -> tuple[Fence, ...]:
    """Return the fences of the blocks that are open."""
    return tuple(dict.fromkeys(_active))


def is_fenced(url: str) -> bool:
    """Return whether a write to the path or URL `url` is checked."""
    return any(_encloses(fence, url) for fence in active_fences())


def check_write(url: str) -> None:
    """Raise the error of a fence around the path or URL `url` whose lock was lost."""
    for fence in active_fences():
        if _encloses(fence, url):
            fence.check()


def _encloses(fence: Fence, url: str) -> bool:
    return url.startswith(f"{fence.folder}/") and url != f"{fence.folder}/{LOCK}"


def check_all() -> None:
    """Raise the error of any fence of this process whose lock was lost."""
    for _, check in active_fences():
        check()
