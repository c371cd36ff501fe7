"""Ctrl-C and SIGTERM as requests: the step in progress ends and is saved; a second signal stops at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequested", "graceful_shutdown"]

_SAME_REQUEST = 1.0
"""Seconds within which a second signal counts as the first one again."""


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised by work that may be left at any point, for the code that began it."""


@contextmanager
def graceful_shutdown(
    announce: Callable[[str], None], *, ends_with_block: bool = False
) -> Iterator[Callable[[], bool]]:
    """Inside the block, the yielded function says whether SIGINT or SIGTERM has arrived.

    Args:
        announce: told of the first request.
        ends_with_block: a block that fails ends the process, so SIGTERM is ignored from then on. torchrun sends SIGTERM
            to all processes as soon as one fails; the others shall still say why they end.
    """
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
    except BaseException:
        if ends_with_block:
            previous[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
