"""What is streamed of a job: how far it is, and its log as it grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from pricebook.core.database import is_outage
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS
from pricebook.core.reading import ReadPool
from pricebook.core.streaming import Source, Stream
from pricebook.jobs import queries
from pricebook.jobs.follower import Follower, Look

_PAGE = 500


def progress_of(follower: Follower, job_id: UUID) -> Source:
    """Tell how a job is whenever it has changed, to its end."""

    @asynccontextmanager
    async def source(stream: Stream) -> AsyncIterator[AsyncIterator[bytes]]:
        with follower.watching(job_id, _Progress(stream).look):
            yield _nothing()

    return source


class _Progress:
    """What a stream was told last: that a log has grown is of no interest to it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._last = b""

    def look(self, now: Look | None) -> None:
        if now is not None and now.frame != self._last:
            self._last = now.frame
            self._stream.offer(now.frame, 1)
        if now is None or now.is_over:
            self._stream.finish()


async def _nothing() -> AsyncIterator[bytes]:
    """All that there is to tell comes from the follower."""
    return
    yield


def log_of(reads: ReadPool, follower: Follower, job_id: UUID) -> Source:
    """Send the lines of a job's log, and those to come, to its end."""

    @asynccontextmanager
    async def source(stream: Stream) -> AsyncIterator[AsyncIterator[bytes]]:
        tail = _Tail(reads, job_id, stream)
        with follower.watching(job_id, tail.look):
            yield tail.lines()

    return source


def log_so_far(reads: ReadPool, job_id: UUID) -> Source:
    """Send the lines that are there."""

    @asynccontextmanager
    async def source(stream: Stream) -> AsyncIterator[AsyncIterator[bytes]]:
        tail = _Tail(reads, job_id, stream)
        tail.look(None)
        yield tail.lines()

    return source


class _Tail:
    """The end of a log, read whenever it has grown, as fast as the client takes it."""

    def __init__(self, reads: ReadPool, job_id: UUID, stream: Stream) -> None:
        self._reads = reads
        self._job_id = job_id
        self._stream = stream
        self._place = (0, -1)
        self._is_over = False

    def look(self, now: Look | None) -> None:
        self._is_over = now is None or now.is_over
        self._stream.wake()

    async def lines(self) -> AsyncIterator[bytes]:
        while not self._stream.is_ended:
            # A job ends in the transaction of its last line: what is read from now on has it.
            is_last = self._is_over
            page = await self._page()
            if page:
                yield page
            elif is_last:
                self._stream.finish()
                return
            else:
                await self._stream.rest()

    async def _page(self) -> bytes:
        """Return the next lines, if there are any; wait while the database is away."""
        while not self._stream.is_ended:
            try:
                rows = await self._reads.rows(queries.log_after(self._job_id, self._place, _PAGE))
            except Exception as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
                continue
            if rows:
                self._place = (rows[-1]["lease"], rows[-1]["number"])
            return b"".join(_line(row["written_at"], row["text"]) for row in rows)
        return b""


def _line(written_at: datetime, text: str) -> bytes:
    return f"{written_at:%Y-%m-%dT%H:%M:%SZ} {' '.join(text.splitlines())}\n".encode()
