"""Reading a range of an object over connections that break or stall."""

import time
from collections.abc import Callable, Iterator

from cluster.storage.errors import ReplacedError, StorageError, UnreachableError


def resumed(
    url: str,
    start: int,
    stop: int,
    stream: Callable[[int], Iterator[bytes]],
    raise_final: Callable[[Exception], None],
    attempts: int,
) -> Iterator[bytes]:
    """Yield the bytes from `start` to `stop`, resuming at the current offset whenever a stream fails or ends early.

    Args:
        url: the object, for errors.
        start: first byte.
        stop: end of the range, inside the object.
        stream: opens the object at an offset. All streams must be of one version, so that two are never spliced.
        raise_final: called with an error of a stream; raises the one to report if another attempt is pointless.
        attempts: number of consecutive streams without a byte after which reading fails.

    Raises:
        UnreachableError: that number is reached.
        StorageError: a stream has sent more than the range, or `raise_final` has raised it.
    """
    offset = start
    failures = 0
    while offset < stop:
        before = offset
        try:
            for chunk in stream(offset):
                offset += len(chunk)
                yield chunk
            error: Exception | None = None
        except Exception as broken:
            raise_final(broken)
            error = broken
        if offset >= stop:
            break
        failures = 0 if offset > before else failures + 1
        if failures >= attempts:
            raise UnreachableError(f"{url}: reading stopped at byte {offset} of {stop} ({error or 'the body ended'})")
        time.sleep(min(5.0, 0.1 * 2**failures))
    if offset != stop:
        raise StorageError(f"{url}: received bytes up to {offset}, but requested them up to {stop}")


def replaced(url: str) -> ReplacedError:
    """Return the error for an object of which another version is stored now."""
    return ReplacedError(f"{url}: the object was replaced while it was read; rerun")
