"""The follower: looks at all jobs that someone watches, in one short read a process."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import structlog

from pricebook.core.database import is_outage
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS
from pricebook.core.reading import ReadPool, Row
from pricebook.jobs import queries
from pricebook.jobs.schemas import JobOut
from pricebook.jobs.status import Status

_POLL_SECONDS = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Look:
    """A job as it was at one look, and how far its log was."""

    row: Row

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return Status(self.row["status"]).is_final

    @cached_property
    def frame(self) -> bytes:
        """The job as server-sent events, written once for all who watch it."""
        data = JobOut.model_validate(self.row).model_dump_json()
        names = ("progress", "end") if self.is_over else ("progress",)
        return "".join(f"event: {name}\ndata: {data}\n\n" for name in names).encode()


Tell = Callable[[Look | None], None]
"""Told of each look that found something else than the one before; None: the job is gone."""


@dataclass(eq=False)
class _Watcher:
    tell: Tell
    last: Look | None = None


class Follower:
    """Looks for as long as anyone watches; between two looks it holds no connection."""

    def __init__(self, reads: ReadPool) -> None:
        """Read from `reads`."""
        self._reads = reads
        self._watched: dict[UUID, set[_Watcher]] = defaultdict(set)
        self._woken = asyncio.Event()
        self._is_stopping = False

    @contextmanager
    def watching(self, job_id: UUID, tell: Tell) -> Iterator[None]:
        """Tell how a job is, at once, and whenever it has changed."""
        watcher = _Watcher(tell)
        self._watched[job_id].add(watcher)
        self._woken.set()
        try:
            yield
        finally:
            self._watched[job_id].discard(watcher)
            if not self._watched[job_id]:
                del self._watched[job_id]

    def stop(self) -> None:
        """Look no more."""
        self._is_stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Look until stopped."""
        while not self._is_stopping:
            self._woken.clear()
            if not self._watched:
                await self._woken.wait()
                continue
            try:
                await self._look()
            except Exception as error:
                # Tried again, whatever it is: every stream hangs on it.
                if not is_outage(error):
                    log.exception("jobs cannot be followed")
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._woken.wait()

    async def _look(self) -> None:
        ids = list(self._watched)
        rows = await self._reads.rows(queries.watched(), ids=ids)
        found = {row["id"]: Look(row) for row in rows}
        for job_id in ids:
            self._tell(job_id, found.get(job_id))

    def _tell(self, job_id: UUID, now: Look | None) -> None:
        for watcher in list(self._watched.get(job_id, ())):
            if now is None or now != watcher.last:
                watcher.last = now
                watcher.tell(now)
