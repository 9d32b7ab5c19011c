"""SQLAlchemy's pool, but each free connection goes to whoever has waited for it longest.

Its own queue gives a free connection to whoever asks first, and that is often a request that has
just come in: under load, a few of those that wait are passed over until their time is up.
"""

import asyncio
from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty


class _FairQueue(AsyncAdaptedQueue[Any]):
    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:  # noqa: FBT001, FBT002 -- SQLAlchemy's own signature
        super().__init__(maxsize, use_lifo)
        self._turn = asyncio.Lock()
        self._waiting = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401, FBT001, FBT002 -- likewise
        if not block or not (self._waiting or self.empty()):
            return self.get_nowait()
        try:
            return await_only(self._get_in_turn(timeout))
        except TimeoutError as error:
            raise Empty from error

    async def _get_in_turn(self, timeout_seconds: float | None) -> Any:  # noqa: ANN401 -- likewise
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds), self._turn:
                return await self._queue.get()
        finally:
            self._waiting -= 1


class FairPool(AsyncAdaptedQueuePool):
    """A pool whose connections are lent in the order in which they were asked for."""

    _queue_class = _FairQueue
