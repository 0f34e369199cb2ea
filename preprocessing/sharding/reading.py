"""The clips of an input or the reason why there are none: what is tried again, and what counts as bad."""

import logging
import time
from collections.abc import Generator

from cluster.errors import UserError
from cluster.storage.errors import UnreachableError
from preprocessing.clip import Clip, Clips, Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import SandboxFailedError
from preprocessing.sharding.rejects import Reject

log = logging.getLogger(__name__)

PROCESSES = 5
"""Decoding processes that may fail at an input without it being clear that it is the input's fault."""


def read_item(clips: Clips, item: Item, patience_s: float) -> Generator[Clip, None, Reject | None]:
    """Give the clips of an item, each once, whatever had to be tried again; return the record if it is bad.

    Args:
        clips: gives them from the beginning, each time it is called.
        patience_s: how long it is tried again, from its last clip on, while the network or a disk fails, in seconds.

    Raises:
        UserError: the item could not be read, though it may be good.
    """
    given = failed = 0
    name = item.path or item.key
    end, wait = time.monotonic() + patience_s, 1.0
    while True:
        try:
            for number, clip in enumerate(clips(item)):
                if number == given:
                    yield clip
                    given += 1
                    end, wait = time.monotonic() + patience_s, 1.0
            return None
        except RejectedInputError as error:
            reason, where = error.reason, error.where
            break
        except SandboxFailedError as error:
            failed += 1
            reason, where = error.reason, f"after {given} clips"
            if error.conclusive or failed == PROCESSES:
                break
        except (TransientError, UnreachableError) as error:
            if time.monotonic() + wait > end:
                raise UserError(
                    f"{name} could not be read for {patience_s:.0f} s ({error}); start the same command again when the "
                    "storage answers"
                ) from None
            log.warning("%s: %s; trying again", name, error)
            time.sleep(wait)
            wait = min(2 * wait, 15.0)
    log.warning("%s is rejected: %s%s", name, reason, f" ({where})" if where else "")
    return Reject(name, reason, where, given, item.split)
