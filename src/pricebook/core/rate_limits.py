"""How many requests a caller may make in a window, counted by all API processes together.

Each process counts in memory and, four times a second, adds what it counted to Valkey and reads the
total back. So a request pays no round trip, and the processes may together let through at most what
arrives in a quarter second more than the limit. Without Valkey each process counts alone.

Headers after draft-ietf-httpapi-ratelimit-headers-10.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pricebook.core.context import current_context
from pricebook.core.errors import TooManyRequests
from pricebook.core.settings import LimitSettings

_SHARE_EVERY_SECONDS = 0.25
# A bound on memory, not on callers: past it the oldest callers begin anew.
_MOST_CALLERS = 100_000

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Count:
    """One caller's requests in this window."""

    elsewhere_and_sent: int = 0
    unsent: int = 0


class RateLimiter:
    """Counts requests in fixed windows, refuses those past the limit."""

    def __init__(
        self,
        settings: LimitSettings,
        valkey: "Redis | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Count by `settings`; share the counts through `valkey` while `share` runs."""
        self._settings = settings
        self._valkey = valkey
        self._clock = clock
        self._window = 0
        self._counts: dict[str, _Count] = {}

    def count_network(self, network: str) -> None:
        """Count a request without valid credentials.

        Raises:
            TooManyRequests: The network's limit is used up.

        """
        self._count(f"network:{network}", "anonymous", self._settings.anonymous_requests)

    def count_credential(self, credential_id: UUID) -> None:
        """Count a request of a session or an API key.

        Raises:
            TooManyRequests: The credential's limit is used up.

        """
        self._count(f"credential:{credential_id}", "credential", self._settings.requests)

    def _count(self, key: str, policy: str, limit: int) -> None:
        now = self._clock()
        length = self._settings.window_seconds
        if (window := int(now // length)) != self._window:
            self._window, self._counts = window, {}
        count = self._counts.get(key) or self._begin(key)
        count.unsent += 1
        left = limit - count.elsewhere_and_sent - count.unsent
        reset = max(1, int((window + 1) * length - now))
        _announce(policy, limit, length, max(left, 0), reset)
        if left < 0:
            raise TooManyRequests(retry_after_seconds=reset)

    def _begin(self, key: str) -> _Count:
        if len(self._counts) >= _MOST_CALLERS:
            del self._counts[next(iter(self._counts))]
        return self._counts.setdefault(key, _Count())

    async def share(self, stopping: asyncio.Event) -> None:
        """Exchange counts with the other processes, until `stopping` is set.

        It is not cancelled: redis-py may take that for a broken connection, and go on.
        """
        is_alone = False
        while not stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_SHARE_EVERY_SECONDS):
                    await stopping.wait()
            try:
                await self.share_once()
            except (RedisError, OSError, TimeoutError) as error:
                if not is_alone:
                    log.warning("rate limits are counted by process", error=type(error).__name__)
                is_alone = True
            else:
                is_alone = False

    async def share_once(self) -> None:
        """Add the new counts to Valkey, and take the totals from it."""
        window = self._window
        sent = {key: count.unsent for key, count in self._counts.items() if count.unsent}
        if self._valkey is None or not sent:
            return
        async with self._valkey.pipeline(transaction=False) as pipe:
            for key, requests in sent.items():
                name = f"pricebook:limit:{window}:{key}"
                pipe.incrby(name, requests)
                pipe.expire(name, 2 * self._settings.window_seconds)
            totals = (await pipe.execute())[::2]
        if window != self._window:
            return
        for (key, requests), total in zip(sent.items(), totals, strict=True):
            if count := self._counts.get(key):
                count.unsent -= requests
                count.elsewhere_and_sent = int(total)


def _announce(policy: str, limit: int, length: int, left: int, reset: int) -> None:
    if context := current_context():
        context.headers += (
            (b"ratelimit-policy", f'"{policy}";q={limit};w={length}'.encode()),
            (b"ratelimit", f'"{policy}";r={left};t={reset}'.encode()),
        )
