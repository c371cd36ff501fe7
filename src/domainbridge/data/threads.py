"""Work in threads with results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_threads"]

_THREADS = min(os.cpu_count() or 1, 8)
_QUEUED = 2 * _THREADS
"""Number of results that are computed ahead of the one in use."""

Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], indices: Iterable[int]) -> Iterator[Result]:
    """``work(index)`` for each index, in the order of the indices; threads compute the next few results ahead."""
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        pending: deque[Future[Result]] = deque()
        for index in indices:
            pending.append(pool.submit(work, index))
            if len(pending) > _QUEUED:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
