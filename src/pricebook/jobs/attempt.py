"""One start of a job: does it, keeps its lease meanwhile, and writes down how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from pricebook.core.context import RequestContext, enter_context
from pricebook.core.database import is_outage
from pricebook.core.errors import PricebookError
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS, tell
from pricebook.core.setting_groups import JobSettings
from pricebook.core.tracing import SpanKind, span
from pricebook.jobs import claims
from pricebook.jobs.claims import SHORT_SECONDS
from pricebook.jobs.run import (
    CancelRequestedError,
    JobRefused,
    LeaseLostError,
    Result,
    Run,
    Task,
    end,
    write_log,
)
from pricebook.jobs.status import Status

# Progress is looked at so often, and written if it is another; the lease is renewed at least
# each second.
_LOOK_SECONDS = 0.25
_BEAT_SECONDS = 1.0
_CANCEL_SECONDS = 0.5
# After an outage the next attempt waits this much longer each time.
_RETRY_SECONDS = 2.0

_OWNER_IS_OUT = "Whoever asked for this may no longer have it done."
_TOO_MANY_STARTS = "It was started too often without coming to an end; see the workers' log."
_BROKE = "Something went wrong on our side; the log of the workers tells more."

Write = Callable[[AsyncSession], Awaitable[None]]

log = structlog.get_logger(__name__)


class _Halt(Enum):
    """Why the work is not to go on."""

    CANCEL = auto()
    LOST = auto()
    STOP = auto()


class Attempt:
    """One start of a job, under its lease."""

    def __init__(
        self,
        run: Run,
        task: Task,
        sessions: async_sessionmaker[AsyncSession],
        settings: JobSettings,
    ) -> None:
        """Write down with `sessions`; nothing happens before `make`."""
        self.run = run
        self.is_long = run.job.expected_seconds > SHORT_SECONDS
        self.is_upkeep = task.is_upkeep
        self._task = task
        self._sessions = sessions
        self._settings = settings
        self._working: asyncio.Future[Result | None] | None = None
        self._halt: _Halt | None = None

    async def make(self, *, is_allowed: bool) -> None:
        """Do the job if it may be done, to its end or until it is lost or put back."""
        job = self.run.job
        request_id = job.request_id or f"job-{job.id}"
        about = {"job_id": str(job.id)}
        enter_context(RequestContext(request_id, self.run.owner.user_id, about))
        # Before there is a span: what keeps the lease is no part of the work.
        beating = asyncio.create_task(self._keep())
        try:
            with span(f"job {job.kind}", SpanKind.CONSUMER, [job.traceparent], self._facts()):
                await self._make(self._refusal(is_allowed=is_allowed))
        except LeaseLostError:
            log.warning("job lost", job_id=str(self.run.job.id))
        finally:
            await ended(beating)

    def _facts(self) -> dict[str, str | int]:
        job = self.run.job
        return {
            "pricebook.job_id": str(job.id),
            "pricebook.job_kind": job.kind,
            "pricebook.attempt": job.attempts,
        }

    async def _make(self, refusal: str | None) -> None:
        if self.run.job.cancel_requested_at is not None:
            await self._end(Status.CANCELLED, "Cancelled.")
        elif refusal is not None:
            await self._fail(refusal)
        else:
            await self._do()

    def _refusal(self, *, is_allowed: bool) -> str | None:
        if not is_allowed:
            return _OWNER_IS_OUT
        is_too_often = self.run.job.attempts > self._settings.max_attempts
        return _TOO_MANY_STARTS if is_too_often else None

    async def _do(self) -> None:
        attempts = self.run.job.attempts
        self.run.say("Started." if attempts == 1 else f"Started, for the {_nth(attempts)} time.")
        self._working = asyncio.ensure_future(self._task.work(self.run))
        try:
            await asyncio.wait([self._working])
        finally:
            self._working.cancel()
        self.run.is_completing = False
        await self._settle(self._working)

    async def _settle(self, work: asyncio.Future[Result | None]) -> None:
        """Write down how the work went."""
        error = None if work.cancelled() else _told_by(work.exception())
        if self.run.is_completed:
            self._note_what_came_after(error)
        elif self._halt is _Halt.LOST or isinstance(error, LeaseLostError):
            raise LeaseLostError
        elif not work.cancelled() and error is None:
            await self._succeed(work.result())
        elif self._halt is _Halt.CANCEL or isinstance(error, CancelRequestedError):
            await self._end(Status.CANCELLED, "Cancelled.")
        elif self._halt is _Halt.STOP:
            await self._put_back("The worker stops; it is started again.", is_counted=False)
        else:
            await self._give_up(error or asyncio.CancelledError())

    def _note_what_came_after(self, error: BaseException | None) -> None:
        if error is not None:
            log.error("job broke after its end", job_id=str(self.run.job.id), exc_info=error)

    async def _succeed(self, result: Result | None) -> None:
        try:
            await self._end(Status.SUCCEEDED, "Done.", result=result or {})
        except CancelRequestedError:
            await self._end(Status.CANCELLED, "Cancelled.")

    async def _give_up(self, error: BaseException) -> None:
        run = self.run
        if isinstance(error, PricebookError):
            result = error.result if isinstance(error, JobRefused) else None
            await self._fail(str(error), result=result)
        elif is_outage(error) and run.job.attempts < self._settings.max_attempts:
            log.warning("job broke off", job_id=str(run.job.id), error=type(error).__name__)
            wait_seconds = _RETRY_SECONDS * run.job.attempts
            await self._put_back("Broken off by an outage; it is started again.", wait_seconds)
        else:
            log.error("job broke", job_id=str(run.job.id), kind=run.job.kind, exc_info=error)
            await self._fail(_BROKE)

    async def _fail(self, why: str, *, result: Result | None = None) -> None:
        await self._end(Status.FAILED, f"Failed: {why}", error=why, result=result)

    async def _end(self, status: Status, words: str, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
        try:
            await self._write(lambda session: end(session, self.run, status, words, **values))
        except (LeaseLostError, CancelRequestedError):
            raise
        except Exception:
            # What it found cannot be written down, so that nobody would ever hear of its end.
            log.exception("the end of a job cannot be written", job_id=str(self.run.job.id))
            sad = f"Failed: {_BROKE}"
            await self._write(
                lambda session: end(session, self.run, Status.FAILED, sad, error=_BROKE)
            )

    async def _put_back(
        self, words: str, wait_seconds: float = 0, *, is_counted: bool = True
    ) -> None:
        back = claims.put_back(self.run.lease, wait_seconds=wait_seconds, is_counted=is_counted)

        async def write(session: AsyncSession) -> None:
            if await session.scalar(back) is None:
                raise LeaseLostError
            await write_log(session, self.run, words)

        await self._write(write)

    async def _write(self, write: Write) -> None:
        """Write down what became of it, however long the database is away.

        The lease is kept meanwhile, and asked for: what was written unseen is not written twice.
        """
        while True:
            try:
                async with self._sessions.begin() as session:
                    await write(session)
            except Exception as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            else:
                return

    async def _keep(self) -> None:
        """Keep the lease, write down how far it is, and see whether it is to stop."""
        told, told_at = self._state(), 0.0
        pause_seconds = min(_BEAT_SECONDS, self._settings.lease_seconds / 6)
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, pause_seconds))
            self._insist()
            now = asyncio.get_running_loop().time()
            is_due = now - told_at >= pause_seconds
            if self.run.is_completing or not (is_due or self._state() != told):
                continue
            told, told_at = self._state(), now
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                tell("lease of a job not renewed yet", error, job_id=str(self.run.job.id))

    def _state(self) -> tuple[object, ...]:
        return (self.run.phase, self.run.done, self.run.total, self.run.said_count)

    async def _beat(self) -> None:
        run = self.run
        progress = {"phase": run.phase, "done": run.done, "total": run.total, "rate": run.rate}
        written: list[int] = []
        async with self._sessions.begin() as session:
            beaten = claims.beaten(run.lease, self._settings.lease_seconds, **progress)
            found = (await session.execute(beaten)).one_or_none()
            if found is not None:
                written = await write_log(session, run)
        for number in written:
            run.said.pop(number, None)
        if not run.is_completing:
            self._heed(is_held=found is not None, is_asked=bool(found and found[0]))

    def _heed(self, *, is_held: bool, is_asked: bool) -> None:
        if not is_held:
            self._halt = _Halt.LOST
        elif is_asked and self._halt is None:
            self._halt = _Halt.CANCEL
        self._insist()

    def stop(self) -> None:
        """Break it off, for another worker to start it again; an end that is near is reached."""
        self._halt = self._halt or _Halt.STOP
        self._insist()

    def _insist(self) -> None:
        """Break the work off: some of what it may be waiting for swallows a cancellation."""
        if self._halt is not None and self._working is not None and not self.run.is_completing:
            self._working.cancel()


def _told_by(error: BaseException | None) -> BaseException | None:
    """Return what happened, when it is all that a group of tasks tells of."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks, and wait for them; not for long, since one may hang on a silent database."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)


def _nth(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
