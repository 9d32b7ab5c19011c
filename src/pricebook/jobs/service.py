"""What can be done with jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.queue import expect_jobs
from pricebook.jobs.models import Job

# How much longer work waits for each second that it may take.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What is to be done."""

    kind: str
    params: Mapping[str, Any]
    expected_seconds: float
    """A guess by its size: short work goes first."""
    role: Role = Role.VIEWER
    """The least role that may have this done; whoever has less does not see it either."""
    scope: Scope = Scope.ITEMS_READ
    """What an API key needs to have it done, cancelled or tried again."""
    files: Sequence[str] = ()
    """Names in `core.files` of what belongs to it, and goes when it is pruned."""
    inputs: Sequence[str] = ()
    """Those of them that must be there when it starts, and starts again."""
    is_told: bool = True
    """Whether its owner is told of the end, by inbox and mail."""


async def enqueue(session: AsyncSession, owner: Principal, new: NewJob) -> Job:
    """Add a job: it is there if and only if the session commits, and a worker looks at once."""
    job = Job(
        kind=new.kind,
        owner_id=owner.user_id,
        role=new.role,
        scope=new.scope,
        params=dict(new.params),
        files=list(new.files),
        inputs=list(new.inputs),
        expected_seconds=new.expected_seconds,
        rank_at=func.now() + timedelta(seconds=new.expected_seconds * _PATIENCE),
        is_told=new.is_told,
    )
    session.add(job)
    await session.flush()
    expect_jobs(session)
    return job
