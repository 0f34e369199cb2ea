"""SIGTERM and SIGHUP end a command as Ctrl-C does: it ends what it started, and one line says how to resume."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""From a scheduler that reclaims the machine, and from a terminal that closes."""
AGAIN_S = 0.05
"""Time after which an interruption is repeated that Python dropped, in seconds."""
NOTICED_S = 1.0
"""Longest time in seconds after which `serve_until_stopped` notices a signal."""


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal within the block; further ones do not interrupt the clean-up.

    SIGHUP stays ignored where it is, as under `nohup`. Only the main thread may handle signals; in others, nothing
    changes.
    """
    with kept(), _delivered():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, _interrupt)
        yield


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def serve_until_stopped() -> NoReturn:
    """Wait in the main thread until a signal raises an exception here.

    In short sleeps: a signal that comes after Python's last check and before the system call waits for its end.
    """
    while True:
        time.sleep(NOTICED_S)


@contextlib.contextmanager
def _delivered() -> Iterator[None]:
    """Repeat, within the block, an interruption that came where Python drops exceptions: in `__del__`, or at a fork."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    report, alarm = sys.unraisablehook, signal.getsignal(signal.SIGALRM)

    def repeat(dropped: "sys.UnraisableHookArgs") -> None:
        # A SystemExit is of the handler that Ray has while it starts.
        is_ours = issubclass(dropped.exc_type, KeyboardInterrupt | SystemExit)
        if not is_ours or threading.current_thread() is not threading.main_thread():
            report(dropped)
            return
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        if sys.unraisablehook is repeat:
            sys.unraisablehook = report
        if signal.getsignal(signal.SIGALRM) is _interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Restore the handlers at the end of the block, within which a library may install its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # not installed from Python
                signal.signal(number, handler)


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` at Ctrl-C, SIGTERM and SIGHUP within the block.

    What is ignored stays so. Only the main thread may handle signals; in others, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in (signal.SIGINT, *SIGNALS) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextlib.contextmanager
def hangup_withheld() -> Iterator[None]:
    """Start processes within the block that a closing terminal does not end: the command that started them does so.

    They inherit that the signal is blocked. One that arrives meanwhile is handled after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
