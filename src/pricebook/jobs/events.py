"""The facts about jobs."""

from typing import ClassVar, Literal
from uuid import UUID

from pricebook.core.outbox import Event


class JobFinished(Event):
    """A job succeeded, failed or was cancelled. What it found is told to its owner alone."""

    type: ClassVar[str] = "job.finished"
    subject: ClassVar[str] = "job_id"

    job_id: UUID
    kind: str
    status: Literal["succeeded", "failed", "cancelled"]
    owner_id: UUID | None
