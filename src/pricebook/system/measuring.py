"""What only PostgreSQL and Valkey know of how things stand, for Prometheus."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from pricebook.core.database import Database, is_outage
from pricebook.core.metrics import build
from pricebook.core.reading import Compiled, Row
from pricebook.system import queries

# Whoever asks, and however many: the database is asked once a second.
_KEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0


class Measuring:
    """Asks once for all who want to know."""

    def __init__(self, database: Database) -> None:
        """Ask `database`; nothing is asked before the first `registries`."""
        self._database = database
        # By now every slice has brought its deliveries.
        self._waiting, self._pending = Compiled(queries.waiting()), Compiled(queries.pending())
        self._asking = asyncio.Lock()
        self._build: CollectorRegistry | None = None
        self._last: CollectorRegistry | None = None
        self._asked_at = 0.0

    async def registries(self) -> tuple[CollectorRegistry, CollectorRegistry]:
        """Return which version this is, and how things stood at most a second ago."""
        async with self._asking:
            if self._build is None:
                self._build = await asyncio.to_thread(build)
            if self._last is None or time.monotonic() - self._asked_at >= _KEEP_SECONDS:
                self._last = await self._ask()
                self._asked_at = time.monotonic()
            return self._build, self._last

    async def _ask(self) -> CollectorRegistry:
        reads = self._database.reads
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                waiting, pending = await reads.rows(self._waiting), await reads.rows(self._pending)
        except Exception as error:
            if not is_outage(error):
                raise
            return _registry(is_up=False, waiting={}, pending=[])
        waits = {row["kind"]: row["seconds"] for row in waiting}
        return _registry(is_up=True, waiting=waits, pending=pending)


def _registry(
    *, is_up: bool, waiting: Mapping[str, float], pending: list[Row]
) -> CollectorRegistry:
    registry = CollectorRegistry()
    up = _gauge(registry, "database_up", "Whether the database has answered this process.")
    up.set(is_up)
    if is_up:
        oldest = "How long that has been due which waits longest; 0 if nothing is."
        most = f"What is still to be done, by kind; counted up to {queries.COUNTED_AT_MOST:,}."
        ages = _gauge(registry, "oldest_due_seconds", oldest, "kind")
        counts = _gauge(registry, "pending", most, "kind")
        for row in pending:
            counts.labels(row["kind"]).set(row["count"])
            ages.labels(row["kind"]).set(waiting.get(row["kind"], 0))
    return registry


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Any:  # noqa: ANN401 -- with labels or without
    return Gauge(f"pricebook_{name}", text, labels, registry=registry)
