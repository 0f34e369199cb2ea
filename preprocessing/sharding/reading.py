"""Reading the clips of one input: which failures are retried, and which reject the input."""

import logging
import re
import time
from collections.abc import Generator

from cluster.errors import UserError
from cluster.storage.errors import UnreachableError
from preprocessing.clip import Clip, Clips, Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import SandboxFailedError
from preprocessing.sharding.rejects import Reject
from preprocessing.sources.names import as_text

log = logging.getLogger(__name__)

MAX_INCONCLUSIVE_FAILURES = 5
"""Number of decoding processes that may fail on an input, without proof that it is the cause, before it is rejected."""


_FOLDERS = re.compile(r"(?<![\w./])/(?:[^/\s'\"<>]+/)+")
_RANDOM = re.compile(r"(?<![A-Za-z0-9])(0x|tmp)[0-9a-z_]{6,}")


def without_paths(text: str) -> str:
    """Return a library's message without folders, temporary names and addresses, which differ between runs."""
    return _RANDOM.sub(r"\1", _FOLDERS.sub("", text))


def read_item(clips: Clips, item: Item, patience_s: float) -> Generator[Clip, None, Reject | None]:
    """Yield each clip of an item once, whatever had to be retried. Return the record if the item is rejected.

    Args:
        clips: returns the clips of an item, from the first one each time it is called.
        item: the input.
        patience_s: how long to retry while the network or a disk fails, in seconds since the last clip.

    Raises:
        UserError: the item could not be read, although it may be good.
    """
    yielded = failed = 0
    name = as_text(item.path or item.key)
    end, wait = time.monotonic() + patience_s, 1.0
    while True:
        try:
            for number, clip in enumerate(clips(item)):
                if number == yielded:
                    yield clip
                    yielded += 1
                    end, wait = time.monotonic() + patience_s, 1.0
            return None
        except RejectedInputError as error:
            reason, where = error.reason, without_paths(error.where)
            break
        except SandboxFailedError as error:
            failed += 1
            reason, where = error.reason, f"after {yielded} clips"
            if error.conclusive or failed == MAX_INCONCLUSIVE_FAILURES:
                break
        except (TransientError, UnreachableError) as error:
            if time.monotonic() + wait > end:
                raise UserError(
                    f"{name} could not be read for {patience_s:.0f} s ({error}); rerun the same command when the "
                    "storage responds"
                ) from None
            log.warning("%s: %s; retrying", name, error)
            time.sleep(wait)
            wait = min(2 * wait, 15.0)
    log.warning("%s is rejected: %s%s", name, reason, f" ({where})" if where else "")
    return Reject(name, reason, where, yielded, item.split)
