"""Requests to stop: Ctrl-C, a batch system's SIGTERM, and SIGHUP, which a lost terminal sends; and processes that end with
the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

_PARENT_EVERY = 0.5  # seconds between looks for the parent process
_watched: list[int] = []  # the parent that this process watches


@contextlib.contextmanager
def stop_requests(handle: Callable[[], None]) -> Iterator[None]:
    """Call `handle` on each request while the block runs. SIGHUP stays ignored under nohup. Does nothing in another
    thread than the main one, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: handle()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_terminal() -> None:
    """Leave Ctrl-C and a lost terminal, of which all processes are told, to the parent process."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def cpu_limit(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise `error()` in the block once this process has used so many seconds of CPU in it. It comes between two calls
    into C: a single one that never returns is not ended. Does nothing in another thread than the main one."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield
        return

    def expire(number: int, frame: object) -> None:
        raise error()

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def end_with_parent() -> None:
    """End this process soon after its parent has ended, however that came. May be called again."""
    parent = os.getppid()
    if parent in _watched:
        return
    _watched[:] = [parent]

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="dataprep-parent", daemon=True).start()
