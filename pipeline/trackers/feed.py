"""What passes rows to a tracker, in a thread of its own: no training waits for a tracker, or ends because of it."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.errors import first_line
from pipeline.trackers.tracker import MEDIA, Row, Tracker

RETRY_S = 30.0
"""Seconds after which a tracker that failed is tried again."""

logger = logging.getLogger(__name__)


class Feed:
    """Sends rows to a tracker in their order, each once. If the tracker fails, they wait.

    Args:
        name: name of the tracker, for messages.
        tracker: what is fed. It is used by the thread of this object only, but for its making.
        retry_s: see `RETRY_S`.
    """

    def __init__(self, name: str, tracker: Tracker, *, retry_s: float = RETRY_S) -> None:
        self._name, self._tracker, self._retry_s = name, tracker, retry_s
        self._newest: dict[str, int] = {}
        self._waiting: deque[Row | Path] = deque()
        self._changed = threading.Condition()
        self._is_closing = threading.Event()
        self._is_failing = False
        self.sending = threading.Lock()
        """Held while something is sent: whoever holds it sees complete files of the tracker."""
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"tracker {name}")
        self._thread.start()

    def put(self, items: Iterable[Row | Path]) -> None:
        """Have rows sent, and files kept, after those before them."""
        with self._changed:
            self._waiting.extend(items)
            self._changed.notify()

    def rewind(self, step: int) -> None:
        """Drop rows after `step` that were not sent: those steps will be repeated, perhaps with other values."""
        with self._changed:
            kept = [one for one in self._waiting if isinstance(one, Path) or one.step <= step]
            self._waiting = deque(kept)

    def close(self, patience_s: float) -> int:
        """Send what is left, for at most `patience_s` seconds, and return how much was not sent."""
        with self._changed:
            self._is_closing.set()
            self._changed.notify()
        self._thread.join(patience_s)
        left = len(self._waiting)
        if left:
            logger.warning("%s lacks the last %d entries; they are sent when the run is resumed", self._name, left)
        elif self._thread.is_alive():
            logger.warning("%s has not confirmed the last entries", self._name)
        return left

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing.is_set())
                if not self._waiting:
                    break
                item = self._waiting[0]
            if self._attempt(lambda item=item: self._send(item)):  # type: ignore[misc]
                with self._changed:
                    if self._waiting and self._waiting[0] is item:  # not rewound meanwhile
                        self._waiting.popleft()
            elif self._is_closing.wait(self._retry_s):
                return
        self._attempt(self._tracker.close)

    def _attempt(self, act: Callable[[], None]) -> bool:
        """Return whether a call of the tracker succeeded."""
        try:
            with self.sending:
                act()
        except Exception as error:  # every library has its own kinds
            self._newest.clear()  # it may hold more than was acknowledged
            if not self._is_failing:
                logger.warning(
                    "%s: %.200s; the training continues, and entries are kept for later", self._name, first_line(error)
                )
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def _send(self, item: Row | Path) -> None:
        if isinstance(item, Path):
            self._tracker.file(item)
            return
        series = [*item.scalars, *([MEDIA] if item.media else [])]
        for one in series:
            if one not in self._newest:
                self._newest[one] = self._tracker.newest(one)
        if missing := item.after(self._newest):
            self._tracker.add(missing)
        for one in series:
            self._newest[one] = max(self._newest[one], item.step)
