"""The tables of jobs and what they say as they run."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Text,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.context import current_context
from pricebook.core.database import Base
from pricebook.core.leases import Leased
from pricebook.core.tracing import current_traceparent
from pricebook.jobs.errors import JobIsOver, JobIsUnfinished
from pricebook.jobs.status import Status
from pricebook.users.models import User

_UNFINISHED = "status IN ('queued', 'running')"


class Job(Leased, Base):
    """Long work that a person waits for. A worker runs it under a lease that it renews."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"
        ),
        CheckConstraint("(finished_at IS NULL) = (" + _UNFINISHED + ")", name="finished"),
        Index("ix_jobs_unfinished", "rank_at", "id", postgresql_where=text(_UNFINISHED)),
        Index("ix_jobs_owner_id", "owner_id", "id"),
        Index(
            "ix_jobs_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")
        ),
    )

    kind: Mapped[str]
    # Null once the person is gone: then it can be looked at by admins, and no longer run.
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="SET NULL"))
    params: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # Who may have it done, and what an API key needs for that: so much it takes to see it, and to
    # cancel it or have it tried again.
    role: Mapped[str]
    scope: Mapped[str]
    # Names in `core.files`: what goes when the job is pruned, and what it cannot start without.
    files: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    inputs: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    # Short work overtakes long work, but none waits for ever: the moment of asking, put off by a
    # multiple of the time that it may take.
    rank_at: Mapped[datetime]
    expected_seconds: Mapped[float] = mapped_column(Float)
    is_told: Mapped[bool]
    """Whether the owner is told of the end, by inbox and mail."""
    # Who asks for it next asks in another request; a job that is older than these has neither.
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]

    status: Mapped[str] = mapped_column(server_default=text("'queued'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    phase: Mapped[str | None]
    done: Mapped[int] = mapped_column(server_default=text("0"))
    total: Mapped[int | None]
    rate: Mapped[float | None] = mapped_column(Float)
    """Done in a second of the present phase, as measured by who does it."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 -- SQLAlchemy declares it as no ClassVar

    def cancel(self, *, is_held: bool) -> None:
        """Ask its worker to stop; without one it ends at once.

        Raises:
            JobIsOver: It has ended.

        """
        if Status(self.status).is_final:
            raise JobIsOver(job_id=self.id)
        if self.cancel_requested_at is None:
            self.cancel_requested_at = func.now()
        if not is_held:
            self.status = Status.CANCELLED
            self.finished_at = func.now()
            self._take_from_workers()

    def begin_anew(self, patience: timedelta) -> None:
        """Queue it again as if it had just been asked for, `patience` behind what is urgent.

        Raises:
            JobIsUnfinished: It has neither failed nor been cancelled.

        """
        if self.status not in {Status.FAILED, Status.CANCELLED}:
            raise JobIsUnfinished(job_id=self.id)
        self.status = Status.QUEUED
        self.note_request()
        self.attempts = self.done = 0
        self.phase = self.total = self.rate = self.result = self.error = None
        self.cancel_requested_at = self.started_at = self.finished_at = None
        self.due_at = func.now()
        self.rank_at = func.now() + patience
        self._take_from_workers()

    def note_request(self) -> None:
        """Remember who asks, for the log lines and the trace of what is done."""
        context = current_context()
        self.request_id = context.request_id if context else None
        self.traceparent = current_traceparent()

    def _take_from_workers(self) -> None:
        """Whoever held it, though its time was up, changes nothing any more."""
        self.leased_until = None
        self.lease += 1

    @classmethod
    def is_unfinished(cls) -> ColumnElement[bool]:
        """Written out, as the partial index has it."""
        return literal_column(f"jobs.{_UNFINISHED}")


class JobLogLine(Base):
    """Something that a job said, numbered by its attempts: to write a line twice writes it once."""

    __tablename__ = "job_log_lines"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    lease: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class BackfillRecord(Base):
    """How far a backfill is. It outlives its jobs: a migration may ask whether it has finished."""

    __tablename__ = "backfills"

    name: Mapped[str] = mapped_column(primary_key=True)
    # The key of the last row that was seen, as text; null before the first.
    place: Mapped[str | None]
    seen: Mapped[int] = mapped_column(server_default=text("0"))
    written: Mapped[int] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]

    def move_on(self, place: str | None, seen: int, written: int) -> None:
        """Note a batch; `place` is None if there was nothing left."""
        self.place = place or self.place
        self.seen += seen
        self.written += written

    def begin_anew(self) -> None:
        """Go through all rows once more."""
        self.place = self.finished_at = None
        self.seen = self.written = 0
        self.started_at = func.now()


__all__ = ["BackfillRecord", "Job", "JobLogLine", "Status"]
