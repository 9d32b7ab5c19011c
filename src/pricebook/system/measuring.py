"""What only PostgreSQL and Valkey know of how things stand, for Prometheus."""

import asyncio
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily

from pricebook.core.database import Database, is_outage
from pricebook.core.metrics import build, told
from pricebook.core.reading import Compiled, Row
from pricebook.system import queries

# Whoever asks, and however many: the database is asked once a second.
_KEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_OLDEST = "How long that has been due which waits longest; 0 if nothing is."
_PENDING = f"What is still to be done, by kind; counted up to {queries.COUNTED_AT_MOST:,}."


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
    up = _gauge("database_up", "Whether the database has answered this process.")
    up.add_metric((), is_up)
    if not is_up:
        return told(up)
    ages = _gauge("oldest_due_seconds", _OLDEST, "kind")
    counts = _gauge("pending", _PENDING, "kind")
    for row in pending:
        counts.add_metric((row["kind"],), row["count"])
        ages.add_metric((row["kind"],), waiting.get(row["kind"], 0))
    return told(up, ages, counts)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pricebook_{name}", text, labels=labels)
