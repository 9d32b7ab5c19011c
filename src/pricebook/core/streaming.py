"""Streams that stay open, and the process's hold on them: it can end each at any time.

They are written straight to ASGI. FastAPI's own way, a generator that yields, runs two tasks and
several queues for each event and reader; here an event is encoded once for all of its readers.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.types import Receive, Send

from pricebook.core.database import is_outage
from pricebook.core.errors import Unavailable
from pricebook.core.principal import Principal
from pricebook.core.setting_groups import StreamSettings

ABORT: Final = "pricebook.abort"
"""Where the server puts into the scope how to cut a connection whose client reads no more."""

_BEAT_SECONDS = 10.0
_TEND_SECONDS = 0.5
_FAREWELL_SECONDS = 1.0
_RETRY_MILLISECONDS = (500, 2_500)

log = structlog.get_logger(__name__)


class TooManyStreams(Unavailable):
    """Too many streams are open here; try again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose stream it is, and by which token."""

    principal: Principal
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """What all streams of one kind have in common."""

    media_type: str
    edge: Callable[[], bytes]
    """What is said at the beginning and at the end."""
    beat: Callable[[], bytes]
    """A sign of life that changes nothing for the client."""


def retry_hint() -> bytes:
    """Tell the client when to come back, once the stream has ended; each a little different."""
    return b"retry: %d\n\n" % random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 -- no secret


SERVER_SENT_EVENTS: Final = Form("text/event-stream", edge=retry_hint, beat=lambda: b":\n\n")
PLAIN_TEXT: Final = Form("text/plain; charset=utf-8", edge=lambda: b"", beat=lambda: b"")


class Stream:
    """One open stream: what waits for its client, and whether it is to end.

    What it tells is offered to it; or the stream is woken, and takes it from its source by itself.
    """

    __slots__ = (
        "_abort",
        "_chunks",
        "_form",
        "_is_finished",
        "_is_sending",
        "_limit",
        "_something",
        "_waiting",
        "beat",
        "caller",
        "ends_at",
        "is_ended",
        "quiet_since",
    )

    def __init__(
        self,
        form: Form,
        caller: Caller,
        abort: Callable[[], None],
        *,
        limit: int,
        max_age_seconds: float,
    ) -> None:
        """Begin; at most `limit` events may wait. `abort` cuts the connection."""
        now = asyncio.get_running_loop().time()
        self.caller = caller
        self.is_ended = False
        self.quiet_since = now
        # Not all at once: those who began together shall not come back together.
        self.ends_at = now + max_age_seconds * random.uniform(0.9, 1.1)  # noqa: S311 -- no secret
        self.beat = form.beat
        self._form = form
        self._abort = abort
        self._is_finished = False
        self._limit = limit
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._something = asyncio.Event()
        self._is_sending = False

    def offer(self, chunk: bytes, events: int) -> None:
        """Have so many events sent; whoever has too many waiting is dropped, and may resume."""
        if self.is_ended:
            return
        self._waiting += events
        if self._waiting > self._limit:
            log.info("slow reader dropped", user_id=str(self.caller.principal.user_id))
            self.end()
            return
        self._chunks.append(chunk)
        self._something.set()

    def wake(self) -> None:
        """Have a source that waits in `rest` look for something to send."""
        self._something.set()

    async def rest(self) -> None:
        """Wait until woken, or until the end."""
        await self._something.wait()
        self._something.clear()

    def finish(self) -> None:
        """End once all has been sent that waits: there is no more to tell."""
        self._is_finished = True
        self._something.set()

    def end(self) -> None:
        """Send nothing more but the end; a client that does not even read is cut off."""
        self.is_ended = True
        self._chunks.clear()
        self._something.set()
        if self._is_sending:
            # `send` gives way to others only while the client's side is full.
            self._abort()

    def keep_alive(self, now: float) -> None:
        """Send a sign of life if nothing was sent for long."""
        is_busy = self._is_sending or self._chunks
        if now - self.quiet_since > _BEAT_SECONDS and not is_busy and (beat := self.beat()):
            self.offer(beat, 0)

    async def serve(self, send: Send, backlog: AsyncIterator[bytes]) -> None:
        """Send the backlog, and then what is offered, until the end."""
        await self._send(send, self._form.edge())
        async for chunk in backlog:
            if self.is_ended:
                break
            await self._send(send, chunk)
        while not self.is_ended:
            if self._chunks:
                chunk = self._take()
                await self._send(send, chunk)
            elif self._is_finished:
                break
            else:
                self._something.clear()
                await self._something.wait()
        await self._finish(send)

    async def _finish(self, send: Send) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": self._form.edge()})
        except TimeoutError:
            self._abort()

    def _take(self) -> bytes:
        chunks = self._chunks
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._waiting = 0
        return chunk

    async def _send(self, send: Send, chunk: bytes) -> None:
        self._is_sending = True
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._is_sending = False
        self.quiet_since = asyncio.get_running_loop().time()


Recheck = Callable[[Collection[str]], Awaitable[Mapping[str, Principal]]]
Source = Callable[[Stream], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Ties a stream to what it tells of; yields what is to be sent before what is offered."""


class Streams:
    """All open streams of a process."""

    def __init__(self, settings: StreamSettings, recheck: Recheck) -> None:
        """Bound them by the settings, and end those whose token `recheck` knows no more."""
        self._settings = settings
        self._recheck = recheck
        self._open: set[Stream] = set()
        self._is_stopping = asyncio.Event()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @contextmanager
    def open(self, form: Form, caller: Caller, abort: Callable[[], None]) -> Iterator[Stream]:
        """Yield a new stream, and forget it at the end.

        Raises:
            TooManyStreams: There is no room for another, or the process is stopping.

        """
        if len(self._open) >= self._settings.max_readers or self._is_stopping.is_set():
            raise TooManyStreams
        stream = Stream(
            form,
            caller,
            abort,
            limit=self._settings.buffer_events,
            max_age_seconds=self._settings.max_age_seconds,
        )
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)

    def end_all(self) -> None:
        """End every stream and open no other: the process is stopping."""
        self._is_stopping.set()
        for stream in self._open:
            stream.end()

    async def tend(self) -> None:
        """Keep the streams alive that may go on, and end the others, until `end_all`."""
        pause_seconds = min(_TEND_SECONDS, self._settings.max_age_seconds / 2)
        while not self._is_stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._is_stopping.wait()
            self._tend_by_age(asyncio.get_running_loop().time())
            try:
                await self._tend_by_credentials()
            except Exception as error:
                if not is_outage(error):
                    log.exception("credentials of streams not checked")

    def _tend_by_age(self, now: float) -> None:
        for stream in list(self._open):
            if now > stream.ends_at:
                stream.end()
            else:
                stream.keep_alive(now)

    async def _tend_by_credentials(self) -> None:
        """End the streams of those who were shut out, or whose role is another now."""
        callers = {stream.caller for stream in self._open}
        if not callers:
            return
        found = await self._recheck({caller.token for caller in callers})
        revoked = {one for one in callers if found.get(one.token) != one.principal}
        for stream in [one for one in self._open if one.caller in revoked]:
            stream.end()


async def left(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
