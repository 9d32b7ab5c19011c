"""Events: facts, written in the transaction of the change that they tell of."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Index, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from pricebook.core.context import current_context
from pricebook.core.database import Base
from pricebook.core.principal import Role
from pricebook.core.tracing import current_traceparent


class TransactionId(UserDefinedType[int]):
    """PostgreSQL's `xid8`: the number of a transaction, which never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in DDL."""
        return "XID8"


class Event(BaseModel):
    """A fact in the past tense. `type` is its public name; the fields are its payload."""

    model_config = ConfigDict(frozen=True)

    type: ClassVar[str]
    subject: ClassVar[str]
    """The name of the field that holds the id of what the fact is about."""
    audience: ClassVar[Role] = Role.ADMIN
    """The least role that may read it in the log; no payload holds what that role may not see."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_options: object) -> None:
        """Enter a kind of event, which has a `type`, in `EVENT_TYPES`."""
        if "type" in vars(cls):
            EVENT_TYPES[cls.type] = cls


EVENT_TYPES: dict[str, type[Event]] = {}
"""Every kind of event by its public name, as far as its module is imported."""


def types_for(role: Role) -> list[str]:
    """Return the kinds of event that someone of this role may read, by name."""
    return sorted(name for name, event in EVENT_TYPES.items() if role.includes(event.audience))


class EventRecord(Base):
    """An event as it lies in the outbox.

    Ids are given out before commit, so no id tells what a reader has seen. Whoever follows the log
    asks for what the snapshot of its last look had not seen, and none that commits late is passed
    over; the order is that of `(transaction_id, id)`.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_transaction_id", "transaction_id", "id"),
        Index("ix_events_subject_id", "subject_id", "id"),
        Index(
            "ix_events_unexpanded",
            "transaction_id",
            "id",
            postgresql_where=text("expanded_at IS NULL"),
        ),
    )

    # monotonic: many events go in one INSERT, and come out in the order they were recorded.
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7(monotonic=True))
    type: Mapped[str]
    subject_id: Mapped[UUID]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    actor_id: Mapped[UUID | None]
    request_id: Mapped[str | None]
    # Of the span that recorded it, if there was one (W3C Trace Context).
    traceparent: Mapped[str | None]
    transaction_id: Mapped[int] = mapped_column(
        TransactionId(), server_default=func.pg_current_xact_id()
    )
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expanded_at: Mapped[datetime | None]

    # What is recorded is not read back.
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 -- SQLAlchemy declares it as no ClassVar


def what_led_to(event_id: InstrumentedAttribute[Any]) -> tuple[ColumnElement[str | None], ...]:
    """Return, of an event, the columns `request_id` and `traceparent`; null if there is none."""
    found = select(EventRecord.request_id).where(EventRecord.id == event_id)
    trace = found.with_only_columns(EventRecord.traceparent)
    return (
        found.scalar_subquery().label("request_id"),
        trace.scalar_subquery().label("traceparent"),
    )


_HAS_EVENTS = "pricebook.has_events"


def has_events(session: AsyncSession) -> bool:
    """Whether this session gives the workers something to do."""
    return _HAS_EVENTS in session.info


def expect_deliveries(session: AsyncSession) -> None:
    """Have the workers told, after the commit, of deliveries that come of no event."""
    session.info[_HAS_EVENTS] = True


def record(session: AsyncSession, event: Event) -> None:
    """Write the event in the session's transaction: it is kept if and only if the change is."""
    session.info[_HAS_EVENTS] = True
    context = current_context()
    session.add(
        EventRecord(
            type=event.type,
            subject_id=getattr(event, event.subject),
            payload=event.model_dump(mode="json"),
            actor_id=context.user_id if context else None,
            request_id=context.request_id if context else None,
            traceparent=current_traceparent(),
        )
    )
