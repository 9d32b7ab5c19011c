"""A job as the one who does it sees it: what is wanted, and a place to say how far it is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database
from pricebook.core.errors import PricebookError
from pricebook.core.files import Files
from pricebook.core.leases import Lease
from pricebook.core.outbox import record
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import Settings
from pricebook.jobs import queries
from pricebook.jobs.events import JobFinished
from pricebook.jobs.models import Job, Status

Result = dict[str, Any]
"""What a job found, as JSON has it; its owner reads it."""


class LeaseLostError(Exception):
    """Another worker has this job now: whatever was done here is to be rolled back."""


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
    said: list[str] = field(default_factory=list)
    """Lines that are not written to the log yet; the heartbeat takes them."""
    is_completed: bool = False

    @property
    def params(self) -> Mapping[str, Any]:
        """What was asked for."""
        return self.job.params

    @property
    def lease(self) -> Lease:
        """What this attempt holds."""
        return Lease(id=self.job.id, lease=self.job.lease)

    def progress(self, phase: str, done: int = 0, total: int | None = None) -> None:
        """Say how far it is; costs nothing, and is written within a second."""
        self.phase, self.done, self.total = phase, done, total

    def say(self, text: str) -> None:
        """Write a line to the job's log, within a second."""
        self.said.append(text)

    async def complete(self, session: AsyncSession, result: Result) -> None:
        """Succeed in the transaction of the work itself: both are there, or neither.

        Work that writes to the database calls this last, before its commit; for other work the
        runner does.

        Raises:
            LeaseLostError: Another worker has the job.

        """
        await end(session, self, Status.SUCCEEDED, result=result)
        self.is_completed = True


async def end(session: AsyncSession, run: Run, status: Status, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
    """Write down the end of a job, and record the fact.

    Raises:
        LeaseLostError: Another worker has the job.

    """
    if status is Status.SUCCEEDED and run.total is not None:
        run.done = run.total
    done = {"phase": None, "done": run.done, "total": run.total}
    ended = queries.ended(run.lease, status, **values, **done)
    found = (await session.execute(ended)).one_or_none()
    if found is None:
        raise LeaseLostError
    fact = JobFinished(
        job_id=run.job.id, kind=found.kind, status=status.value, owner_id=found.owner_id
    )
    record(session, fact)


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of job: who may have it done, and how it is done."""

    role: Role
    work: Callable[[Run], Awaitable[Result | None]]


Tasks = Mapping[str, Task]
"""Every kind of job that a worker can do, by name."""
