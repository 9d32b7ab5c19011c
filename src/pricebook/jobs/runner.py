"""The runner: starts jobs, keeps their leases, and writes down how each ended.

One runs in each worker process. Whoever wakes it saves it the rest of its beat; it needs no one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import insert

from pricebook.core.context import RequestContext, enter_context
from pricebook.core.database import Database, is_outage
from pricebook.core.errors import PricebookError
from pricebook.core.leases import Lease
from pricebook.core.principal import Principal, Role
from pricebook.jobs import queries
from pricebook.jobs.models import Job, JobLogLine, Status
from pricebook.jobs.run import JobRefused, LeaseLostError, Run, Tasks, Tools, end

_BEAT_SECONDS = 1.0
_OUTAGE_PAUSE_SECONDS = 0.5
_FAREWELL_SECONDS = 2.0
# After an outage or the death of a worker the next attempt waits this much longer each time.
_RETRY_SECONDS = 2.0

_OWNER_IS_OUT = "Whoever asked for this may no longer have it done."
_TOO_MANY_STARTS = "It was started too often without coming to an end; see the workers' log."
_BROKE = "Something went wrong on our side; the log of the workers tells more."

log = structlog.get_logger(__name__)


class Runner:
    """Runs jobs until it is told to stop."""

    def __init__(self, database: Database, tools: Tools, tasks: Tasks) -> None:
        """Claim and write down with `database`; give each task its `tools`."""
        self._sessions = database.sessions
        self._tools = tools
        self._tasks = tasks
        self._settings = tools.settings.jobs
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._running: dict[UUID, tuple[Run, asyncio.Task[None]]] = {}
        self._cancelled: set[UUID] = set()

    def wake(self) -> None:
        """Look for jobs now, and not only at the next beat."""
        self._woken.set()

    def stop(self) -> None:
        """Start nothing more."""
        self._is_stopping = True
        self.wake()

    async def run(self) -> None:
        """Work until stopped; what is under way then is put back, for another worker to start."""
        beating = asyncio.create_task(self._forever(self._beat, self._settings.lease_seconds / 6))
        try:
            while not self._is_stopping:
                self._woken.clear()
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT_SECONDS):
                        await self._woken.wait()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await self._put_all_back()

    async def _forever(self, work: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        while True:
            await asyncio.sleep(min(_BEAT_SECONDS, pause_seconds))
            await work()

    async def _look(self) -> None:
        """Start what there is room for; the last place is kept for short work."""
        try:
            while not self._is_stopping and (room := self._room()):
                is_short = room == 1 and self._settings.concurrency > 1
                if not await self._start_one(is_short=is_short):
                    return
        except Exception as error:  # noqa: BLE001 -- told, and tried again: a worker that ends helps nobody
            _tell("could not look for jobs", error)
            await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)

    def _room(self) -> int:
        return self._settings.concurrency - len(self._running)

    async def _start_one(self, *, is_short: bool) -> bool:
        async with self._sessions.begin() as session:
            claimed = queries.claimed(
                self._tasks, is_short=is_short, lease_seconds=self._settings.lease_seconds
            )
            job = await session.scalar(claimed)
            if job is None:
                return False
            session.expunge(job)
            role = await session.scalar(queries.owner_of(job.owner_id))
        run = Run(job, _principal(job, role), self._tools)
        work = asyncio.create_task(self._work(run, is_allowed=role is not None))
        self._running[job.id] = (run, work)
        return True

    async def _work(self, run: Run, *, is_allowed: bool) -> None:
        enter_context(RequestContext(f"job-{run.job.id}", run.owner.user_id))
        try:
            await self._attempt(run, is_allowed=is_allowed)
        finally:
            self._running.pop(run.job.id, None)
            self._cancelled.discard(run.job.id)
            self.wake()

    async def _attempt(self, run: Run, *, is_allowed: bool) -> None:
        refusal = self._refusal(run, is_allowed=is_allowed)
        if run.job.cancel_requested_at is not None:
            await self._end(run, Status.CANCELLED)
        elif refusal is not None:
            await self._end(run, Status.FAILED, error=refusal)
        else:
            await self._do(run)

    def _refusal(self, run: Run, *, is_allowed: bool) -> str | None:
        task = self._tasks[run.job.kind]
        if not is_allowed or not run.owner.role.includes(task.role):
            return _OWNER_IS_OUT
        return _TOO_MANY_STARTS if run.job.attempts > self._settings.max_attempts else None

    async def _do(self, run: Run) -> None:
        run.say("Started." if run.job.attempts == 1 else f"Started, for the {_nth(run)} time.")
        try:
            result = await self._tasks[run.job.kind].work(run)
        except asyncio.CancelledError:
            if run.job.id not in self._cancelled:
                # Lost, or the worker stops: whoever holds it next starts from a clean state.
                raise
            run.say("Cancelled.")
            await self._end(run, Status.CANCELLED)
        except LeaseLostError:
            log.warning("job lost", job_id=str(run.job.id))
        except PricebookError as error:
            run.say(f"Failed: {error}")
            result = error.result if isinstance(error, JobRefused) else None
            await self._end(run, Status.FAILED, error=str(error), result=result)
        except Exception as error:  # noqa: BLE001 -- told, and written down
            await self._break_off(run, error)
        else:
            run.say("Done.")
            await self._end(run, Status.SUCCEEDED, result=result or {})

    async def _break_off(self, run: Run, error: Exception) -> None:
        if is_outage(error) and run.job.attempts < self._settings.max_attempts:
            _tell("job broke off, and is started again", error, job_id=str(run.job.id))
            run.say("Broken off by an outage; it is started again.")
            wait = _RETRY_SECONDS * run.job.attempts
            await self._write(run, queries.put_back(run.lease, wait_seconds=wait, is_counted=True))
            return
        log.error("job broke", job_id=str(run.job.id), kind=run.job.kind, exc_info=error)
        run.say(f"Failed: {_BROKE}")
        await self._end(run, Status.FAILED, error=_BROKE)

    async def _end(self, run: Run, status: Status, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
        async def write() -> None:
            async with self._sessions.begin() as session:
                if not run.is_completed:
                    await end(session, run, status, **values)
                await _write_log(session, run)

        await self._until_written(run, write)

    async def _write(self, run: Run, statement: Any) -> None:  # noqa: ANN401 -- an UPDATE of any columns
        async def write() -> None:
            async with self._sessions.begin() as session:
                await session.execute(statement)
                await _write_log(session, run)

        await self._until_written(run, write)

    async def _until_written(self, run: Run, write: Callable[[], Awaitable[None]]) -> None:
        """Write down an end, however long the database is away; the lease is kept meanwhile."""
        while True:
            try:
                await write()
            except LeaseLostError:
                log.warning("job lost at its end", job_id=str(run.job.id))
            except Exception as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)
                continue
            return

    async def _beat(self) -> None:
        """Keep the leases, write down how far each is, and see who is asked to stop."""
        for run, work in list(self._running.values()):
            try:
                await self._beat_for(run, work)
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                _tell("lease of a job not renewed yet", error, job_id=str(run.job.id))

    async def _beat_for(self, run: Run, work: asyncio.Task[None]) -> None:
        if run.is_completed:
            return
        async with self._sessions.begin() as session:
            beaten = queries.beaten(
                run.lease,
                self._settings.lease_seconds,
                phase=run.phase,
                done=run.done,
                total=run.total,
            )
            found = (await session.execute(beaten)).one_or_none()
            if found is not None:
                await _write_log(session, run)
        self._stop_if_asked(run, work, is_held=found is not None, is_asked=bool(found and found[0]))

    def _stop_if_asked(
        self, run: Run, work: asyncio.Task[None], *, is_held: bool, is_asked: bool
    ) -> None:
        is_over = work.done() or run.is_completed or run.job.id not in self._running
        if is_over or run.job.id in self._cancelled:
            return
        if is_held and is_asked:
            self._cancelled.add(run.job.id)
        if is_asked or not is_held:
            work.cancel()

    async def _put_all_back(self) -> None:
        runs = list(self._running.values())
        for _run, work in runs:
            work.cancel()
        await asyncio.gather(*(work for _run, work in runs), return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for run, _work in runs:
                    await self._put_back(run.lease)

    async def _put_back(self, lease: Lease) -> None:
        async with self._sessions.begin() as session:
            await session.execute(queries.put_back(lease, wait_seconds=0, is_counted=False))


async def _write_log(session: Any, run: Run) -> None:  # noqa: ANN401 -- AsyncSession
    if lines := [{"job_id": run.job.id, "text": text} for text in run.said]:
        await session.execute(insert(JobLogLine), lines)
        del run.said[: len(lines)]


def _principal(job: Job, role: str | None) -> Principal:
    return Principal(
        user_id=job.owner_id or job.id, role=Role(role or Role.VIEWER), credential_id=job.id
    )


def _nth(run: Run) -> str:
    number = run.job.attempts
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _tell(what: str, error: Exception, **context: str) -> None:
    """Log what could not be done and is tried again; an outage needs no traceback."""
    if is_outage(error):
        log.warning(what, error=type(error).__name__, **context)
    else:
        log.error(what, exc_info=error, **context)
