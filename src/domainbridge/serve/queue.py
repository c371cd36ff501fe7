"""One model, one thread, a bounded number of places: requests wait their turn, and too many are sent away."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from domainbridge.serve.refusal import RefusalError

__all__ = ["ModelQueue", "Turn"]

Result = TypeVar("Result")


class ModelQueue:
    """Work in one thread, in the order of its arrival.

    Attributes:
        places: requests that may be here, those that still send their body and the one at work included.
        taken: requests that are here.
    """

    def __init__(self, places: int) -> None:
        self.places, self.taken = places, 0
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="model")

    @contextmanager
    def place(self) -> "Iterator[Turn]":
        """A place for one request.

        A thread cannot be stopped: work that goes on when the request is over keeps the place until it ends. So the
        number of images in memory stays bounded.

        Raises:
            RefusalError: 503, all places are taken.
        """
        if self.taken >= self.places:
            raise RefusalError(
                503, "busy", f"{self.places} requests are waiting already; try again later", {"Retry-After": "1"}
            )
        self.taken += 1
        place = Turn(self)
        try:
            yield place
        finally:
            place.leave()

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Turn:
    """One request in the queue."""

    def __init__(self, queue: ModelQueue) -> None:
        self.queue = queue
        self.loop = asyncio.get_running_loop()
        self.over = threading.Event()
        self.future: Future[Any] | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``, which begins when what came before is done, and not if the request is over then."""

        def begin() -> Result:
            if self.over.is_set():
                raise asyncio.CancelledError
            return work()

        future = self.queue.pool.submit(begin)
        self.future = future
        return await asyncio.shield(asyncio.wrap_future(future))

    def leave(self) -> None:
        """The request is over."""
        self.over.set()
        if self.future is None or self.future.cancel() or self.future.done():
            self.queue.taken -= 1
        else:
            self.future.add_done_callback(lambda _: self.loop.call_soon_threadsafe(self._left))

    def _left(self) -> None:
        self.queue.taken -= 1
