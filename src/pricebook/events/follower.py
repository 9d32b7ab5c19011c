"""The follower: the one reader of the log in a process, which hands each event to its streams."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import orjson
import structlog

from pricebook.core.database import is_outage
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS
from pricebook.core.reading import ReadPool, Row
from pricebook.core.setting_groups import StreamSettings
from pricebook.core.streaming import Stream
from pricebook.events import queries
from pricebook.events.interest import Interest
from pricebook.events.position import Place, Position, Span
from pricebook.events.service import frame, keys, snapshot

_MOST_AT_ONCE = 500
_OFFERED_AT_ONCE = 50
_JOIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Told:
    """An event that is being told: written at most once for each form that anyone reads."""

    place: str
    row: Row

    @cached_property
    def tags(self) -> frozenset[str]:
        """The tags of the item that it is about, if it is about one."""
        return frozenset(orjson.loads(self.row["tags"] or b"[]"))

    @cached_property
    def for_admins(self) -> bytes:
        """The event as admins read it."""
        return frame(self.place, self.row["type"], self.row["admin_json"])

    @cached_property
    def for_others(self) -> bytes:
        """The event as everyone else reads it."""
        return frame(self.place, self.row["type"], self.row["json"])

    def frame_for(self, interest: Interest) -> bytes | None:
        """Return what a reader gets of it, or None if it is not of interest."""
        if not interest.includes(self.row["type"], self.row["subject_id"], self.tags):
            return None
        return self.for_admins if interest.is_admin else self.for_others


class _Joining(NamedTuple):
    stream: Stream
    interest: Interest
    position: asyncio.Future[Position]


class Follower:
    """Reads the log for as long as anyone listens; between two looks it holds no connection."""

    def __init__(self, reads: ReadPool, settings: StreamSettings) -> None:
        """Look every `poll_seconds`, and whenever someone says that there is something."""
        self._reads = reads
        self._poll_seconds = settings.poll_seconds
        self._page = min(_MOST_AT_ONCE, settings.buffer_events)
        self._listening: dict[Interest, set[Stream]] = defaultdict(set)
        self._joining: list[_Joining] = []
        self._place: Place | None = None
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._is_away = False

    @property
    def place(self) -> Place | None:
        """How far it has told; None while nobody listens."""
        return self._place

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def stop(self) -> None:
        """Look no more."""
        self._is_stopping = True
        self.wake()

    async def join(self, stream: Stream, interest: Interest) -> Position:
        """Tell `stream` of every event of interest that the returned position has not seen.

        That position is of a moment after the call: it has seen all that the caller ever saw.

        Raises:
            TimeoutError: The database is away.

        """
        position: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._joining.append(_Joining(stream, interest, position))
        self.wake()
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                return await position
        except BaseException:
            self.leave(stream, interest)
            raise

    def leave(self, stream: Stream, interest: Interest) -> None:
        """Tell `stream` nothing more."""
        self._joining = [one for one in self._joining if one.stream is not stream]
        self._listening[interest].discard(stream)
        if not self._listening[interest]:
            del self._listening[interest]

    async def run(self) -> None:
        """Follow the log until stopped."""
        while not self._is_stopping:
            self._woken.clear()
            if not self._listening and not self._joining:
                self._place = None
                await self._woken.wait()
                continue
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 -- told, and tried again: every stream hangs on it
                self._note(error)
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            else:
                self._is_away = False
                await self._pause()

    def _note(self, error: Exception) -> None:
        """Say so once for each outage; what has not been told is told after it."""
        if not is_outage(error):
            log.error("the log cannot be followed", exc_info=error)
        elif not self._is_away:
            log.warning("the log cannot be followed, the database is away")
            self._is_away = True

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._woken.wait()

    async def _look(self) -> None:
        """Tell the next events, and let in who wants to listen, once all have been told."""
        joining = list(self._joining)
        now = await snapshot(self._reads)
        if self._place is not None and not self._place.position.precedes(now):
            log.error("the log is another, or older than it was: all streams begin anew")
            self._end_all()
            self._place = None
        if self._place is None:
            self._place = Place(now)
        while self._place != Place(now):
            span = Span(self._place, now)
            rows = await self._read(span)
            self._place = await self._tell(span, rows)
            if len(rows) == self._page:
                # Not faster than the streams can be written: they would all be too slow.
                await asyncio.sleep(self._poll_seconds)
        self._let_in(joining, now)

    async def _read(self, span: Span) -> Sequence[Row]:
        statement = queries.events_between(frozenset(), for_all=True)
        return await self._reads.rows(statement, limit=self._page, **span.bounds())

    async def _tell(self, span: Span, rows: Sequence[Row]) -> Place:
        """Hand events to whom they concern, and return the place that is reached."""
        told = [Told(*pair) for pair in zip(span.places(keys(rows)), rows, strict=True)]
        for interest, streams in list(self._listening.items()):
            frames = [one for event in told if (one := event.frame_for(interest))]
            if frames:
                await _offer(streams, b"".join(frames), len(frames))
        return Place(span.now) if len(rows) < self._page else Place.parse(told[-1].place)

    def _let_in(self, joining: Sequence[_Joining], now: Position) -> None:
        for one in joining:
            if one in self._joining and not one.position.done():
                self._joining.remove(one)
                self._listening[one.interest].add(one.stream)
                one.position.set_result(now)

    def _end_all(self) -> None:
        for streams in self._listening.values():
            for stream in streams:
                stream.end()


async def _offer(streams: Iterable[Stream], chunk: bytes, events: int) -> None:
    """Give the first ones time to send it on before the last ones have it."""
    for number, stream in enumerate(list(streams), start=1):
        stream.offer(chunk, events)
        if number % _OFFERED_AT_ONCE == 0:
            await asyncio.sleep(0)
