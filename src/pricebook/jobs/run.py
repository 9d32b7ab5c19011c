"""A job as the one who does it sees it: what is wanted, and a place to say how far it is."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database
from pricebook.core.errors import PricebookError
from pricebook.core.files import Files
from pricebook.core.leases import Lease
from pricebook.core.metrics import note_job
from pricebook.core.outbox import record
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import Settings
from pricebook.jobs import claims
from pricebook.jobs.events import JobFinished
from pricebook.jobs.models import Job
from pricebook.jobs.status import Status

# Before that, what was done in a phase tells nothing of how fast it goes.
_KNOWN_AFTER_SECONDS = 0.5

Result = dict[str, Any]
"""What a job found, as JSON has it; its owner reads it."""


class LeaseLostError(Exception):
    """Another worker has this job now: whatever was done here is to be rolled back."""


class CancelRequestedError(Exception):
    """It was asked to stop before it had succeeded: what was done is to be rolled back."""


class JobRefused(PricebookError):
    """A job that cannot be done, whoever tries it; the sentence tells its owner why."""

    status = 422

    def __init__(self, detail: str | None = None, *, result: Result | None = None) -> None:
        """Refuse, perhaps with a result that tells more than a sentence can."""
        super().__init__(detail)
        self.result = result


@dataclass(frozen=True, slots=True)
class Tools:
    """What every job works with."""

    settings: Settings
    database: Database
    """Without limits on the time of a statement: for this work alone."""
    files: Files


@dataclass(slots=True)
class Run:
    """One attempt at a job.

    It begins from a clean state, whatever an attempt before it left undone, and may be cancelled
    (`asyncio.CancelledError`) at any await.
    """

    job: Job
    """As it was when claimed; detached."""
    owner: Principal
    """Who asked for it, with the role of this moment."""
    tools: Tools
    phase: str | None = None
    done: int = 0
    total: int | None = None
    said: dict[int, str] = field(default_factory=dict)
    """Lines, by their numbers, that are not known to be in the log yet."""
    is_completing: bool = False
    """Whether its end is in a transaction that is not over yet."""
    is_completed: bool = False
    said_count: int = 0
    began: float = field(default_factory=time.monotonic)
    """A moment of `time.monotonic`."""
    _phase_began: float = field(default_factory=time.monotonic)

    @property
    def params(self) -> Mapping[str, Any]:
        """What was asked for."""
        return self.job.params

    @property
    def lease(self) -> Lease:
        """What this attempt holds."""
        return Lease(id=self.job.id, lease=self.job.lease)

    @property
    def rate(self) -> float | None:
        """How much of the present phase is done in a second."""
        seconds = time.monotonic() - self._phase_began
        return self.done / seconds if self.done and seconds >= _KNOWN_AFTER_SECONDS else None

    def progress(self, phase: str, done: int = 0, total: int | None = None) -> None:
        """Say how far it is; costs nothing, and is written within a second."""
        if phase != self.phase:
            self._phase_began = time.monotonic()
        self.phase, self.done, self.total = phase, done, total

    def say(self, text: str) -> None:
        """Write a line to the job's log, within a second."""
        self.said[self.said_count] = storable(text)
        self.said_count += 1

    async def complete(self, session: AsyncSession, result: Result) -> None:
        """Succeed in the transaction of the work itself: both are there, or neither.

        Work that writes to the database calls this last, before its commit; for other work the
        runner does.

        Raises:
            LeaseLostError: Another worker has the job.
            CancelRequestedError: It was asked to stop; it will be cancelled instead.

        """
        # From here on its row is locked: the heartbeat would wait for it, and nobody can claim it.
        self.is_completing = True
        await end(session, self, Status.SUCCEEDED, "Done.", result=result)
        event.listen(session.sync_session, "after_commit", self._note_completion, once=True)

    def _note_completion(self, _session: object) -> None:
        self.is_completed = True


async def end(session: AsyncSession, run: Run, status: Status, words: str, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
    """Write down the end of a job with all that it said, and record the fact.

    Raises:
        LeaseLostError: Another worker has the job.
        CancelRequestedError: It cannot succeed any more, since it was asked to stop.

    """
    if status is Status.SUCCEEDED and run.total is not None:
        run.done = run.total
    progress = {"done": run.done, "total": run.total, "rate": run.rate}
    ended = claims.ended(run.lease, status, **values, **progress)
    found = (await session.execute(ended)).one_or_none()
    if found is None:
        raise LeaseLostError
    if status is Status.SUCCEEDED and found.cancel_requested_at is not None:
        raise CancelRequestedError
    await write_log(session, run, words)
    fact = JobFinished(
        job_id=run.job.id, kind=found.kind, status=status.value, owner_id=found.owner_id
    )
    record(session, fact)
    note_job(found.kind, status.value, time.monotonic() - run.began)


async def write_log(session: AsyncSession, run: Run, last_words: str | None = None) -> list[int]:
    """Write down what was said, and perhaps a last line; return the numbers of what was said."""
    lines = dict(run.said)
    rows = lines if last_words is None else {**lines, run.said_count: storable(last_words)}
    if rows:
        await session.execute(claims.logged(run.lease, rows))
    return list(lines)


def storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: it would keep later lines out of the log too."""
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of job: who may have it done, and how it is done."""

    role: Role
    work: Callable[[Run], Awaitable[Result | None]]
    is_upkeep: bool = False
    """Whether operators ask for it: it has no owner, and takes no place from what people want."""


Tasks = Mapping[str, Task]
"""Every kind of job that a worker can do, by name."""
