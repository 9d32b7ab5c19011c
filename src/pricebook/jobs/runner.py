"""The runner: starts jobs, as many as there is room for, until the worker stops.

One runs in each worker process. Whoever wakes it saves it the rest of its beat; it needs no one.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

import structlog

from pricebook.core.database import Database
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS, tell
from pricebook.core.principal import Principal, Role
from pricebook.jobs import claims
from pricebook.jobs.attempt import Attempt, ended
from pricebook.jobs.models import Job
from pricebook.jobs.run import Run, Task, Tasks, Tools

_BEAT_SECONDS = 1.0
_FAREWELL_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Runner:
    """Runs jobs until it is told to stop."""

    def __init__(self, database: Database, tools: Tools, tasks: Tasks) -> None:
        """Claim and write down with `database`; give each task its `tools`."""
        self._sessions = database.sessions
        self._tools = tools
        self._tasks = tasks
        self._awaited = [kind for kind, task in tasks.items() if not task.is_upkeep]
        self._upkeep = [kind for kind, task in tasks.items() if task.is_upkeep]
        self._settings = tools.settings.jobs
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running: dict[asyncio.Task[None], Attempt] = {}

    def wake(self) -> None:
        """Look for jobs now, and not only at the next beat."""
        self._woken.set()

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped.set()
        self.wake()

    async def run(self) -> None:
        """Work until stopped; what is under way then is put back, for another worker to start."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            await self._stopped.wait()
            # A claim that is under way may come yet, unless the database is silent.
            await asyncio.wait([looking], timeout=_FAREWELL_SECONDS)
        finally:
            await ended(looking)
            await self._stop_all()

    async def _keep_looking(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 -- told, and tried again: a worker that ends helps nobody
                tell("could not look for jobs", error)
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._woken.wait()

    async def _look(self) -> None:
        """Start what there is room for; upkeep has one place of its own."""
        while not self._stopped.is_set() and len(self._people_wait_for()) < self._room:
            if not await self._start_one(self._awaited, is_short=not self._has_room_for_long()):
                break
        has_place = self._room and len(self._running) == len(self._people_wait_for())
        if self._upkeep and has_place and not self._stopped.is_set():
            await self._start_one(self._upkeep, is_short=False)

    @property
    def _room(self) -> int:
        return self._settings.concurrency

    def _people_wait_for(self) -> list[Attempt]:
        return [attempt for attempt in self._running.values() if not attempt.is_upkeep]

    def _has_room_for_long(self) -> bool:
        """Whether long work may start: it leaves a place to short work, where there are several."""
        long = sum(attempt.is_long for attempt in self._people_wait_for())
        return long < max(1, self._room - 1)

    async def _start_one(self, kinds: Collection[str], *, is_short: bool) -> bool:
        seconds = self._settings.lease_seconds
        claimed = claims.claimed(kinds, is_short=is_short, lease_seconds=seconds)
        async with self._sessions.begin() as session:
            job = await session.scalar(claimed)
            if job is None:
                return False
            session.expunge(job)
            role = await session.scalar(claims.role_of(job.owner_id))
        self._start(job, Role(role) if role else None)
        return True

    def _start(self, job: Job, role: Role | None) -> None:
        task = self._tasks[job.kind]
        run = Run(job, _principal(job, role), self._tools)
        attempt = Attempt(run, task, self._sessions, self._settings)
        making = asyncio.create_task(attempt.make(is_allowed=_may_be_done(job, task, role)))
        self._running[making] = attempt
        making.add_done_callback(self._forget)

    def _forget(self, making: asyncio.Task[None]) -> None:
        attempt = self._running.pop(making)
        if not making.cancelled() and (error := making.exception()):
            job_id = str(attempt.run.job.id)
            log.error("what became of a job is not written down", job_id=job_id, exc_info=error)
        self.wake()

    async def _stop_all(self) -> None:
        making = list(self._running)
        for attempt in self._running.values():
            attempt.stop()
        if making:
            await asyncio.wait(making, timeout=_FAREWELL_SECONDS)
        await ended(*making)


def _may_be_done(job: Job, task: Task, role: Role | None) -> bool:
    if task.is_upkeep:
        return True
    return role is not None and role.includes(task.role) and role.includes(Role(job.role))


def _principal(job: Job, role: Role | None) -> Principal:
    return Principal(user_id=job.owner_id or job.id, role=role or Role.VIEWER, credential_id=job.id)
