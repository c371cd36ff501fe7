"""Ctrl-C as a request: the step in progress is finished and a checkpoint written; a second one stops at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequested", "polite_interruption"]

_SAME_REQUEST = 1.0
"""Seconds within which a second signal is the first one again."""


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised by work that can be left at any point, for whoever began it."""


@contextmanager
def polite_interruption(announce: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Inside, the yielded function says whether SIGINT or SIGTERM has come."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    requested = threading.Event()
    first: list[float] = []

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            # Launchers such as torchrun pass on a Ctrl-C that the terminal has sent to every process already.
            if time.monotonic() - first[0] > _SAME_REQUEST:
                raise KeyboardInterrupt
            return
        requested.set()
        first.append(time.monotonic())
        announce("stopping after this step; once more to stop at once")

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
