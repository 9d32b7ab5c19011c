"""Deliveries: the duty to tell one receiver of something, kept until it is delivered or dead.

All of their state lies in PostgreSQL, and all times are its own. A worker claims what is due under
a lease, sends outside any transaction, and records how it went by the lease's number: whoever lost
the lease to another worker records nothing. A lease that runs out frees what a dead worker held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from random import uniform
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Select,
    Text,
    Update,
    Uuid,
    case,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.leases import Lease, Leased, arrays, is_free, is_held

# Every wait is up to this much longer or shorter, so that receivers that failed together do not
# come back together.
JITTER = 0.2
# A receiver that says when to come back is obeyed up to this many times the wait as planned.
_PATIENCE = 2.0


class Status(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Delivery(Leased):
    """The columns that every table of deliveries has."""

    status: Mapped[str] = mapped_column(Text, server_default=Status.PENDING)
    # In the present round: a delivery that is sent anew starts a new one.
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @classmethod
    def waiting_since(cls) -> Select[datetime]:
        """Select since when the one has been due that waits longest; null if none is.

        A table leaves out those that lie due on purpose.
        """
        return select(func.min(cls.due_at)).where(*is_due(cls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Lease):
    """A delivery that this process alone may send, for as long as it renews the lease."""

    attempts: int
    """Before this one, in the present round."""
    event_id: UUID | None = None
    """What it tells of, if that is one event."""
    request_id: str | None = None
    """Of the request that led to it, if there was one."""
    causes: Sequence[str] = ()
    """What led to it, as W3C Trace Context names it."""

    def names(self) -> dict[str, str]:
        """Return what log lines and spans call it by."""
        event = {} if self.event_id is None else {"event_id": str(self.event_id)}
        return {"delivery_id": str(self.id), **event}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt went."""

    is_delivered: bool = False
    is_final: bool = False
    """Of a failure: trying again cannot help."""
    is_tried: bool = True
    """If not, it was not sent after all: it stays as it was, for whoever may send it."""
    is_needed: bool = True
    """If not, nobody misses it: it is dead, and that is no failure."""
    error: str | None = None
    retry_after_seconds: float | None = None
    """What the receiver asked for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivery after an attempt."""

    status: Status
    wait_seconds: float = 0
    is_counted: bool = True


def judge(delays_seconds: Sequence[float], attempts: int, outcome: Outcome) -> Verdict:
    """Say what follows from the outcome of one more attempt after `attempts` others.

    Of n delays follow n + 1 attempts. `Retry-After` (RFC 9110, section 10.2.3) can put the next
    one off, up to twice the wait as planned; it never makes it come sooner than planned.
    """
    if not outcome.is_tried:
        return Verdict(Status.PENDING, is_counted=False)
    if outcome.is_delivered:
        return Verdict(Status.DELIVERED)
    if outcome.is_final or attempts >= len(delays_seconds):
        return Verdict(Status.DEAD)
    planned = delays_seconds[attempts]
    wait = planned * uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- it spreads load, and guards nothing
    asked = min(outcome.retry_after_seconds or 0, planned * _PATIENCE)
    return Verdict(Status.PENDING, max(wait, asked))


# Written out, as the partial indexes have it: to a plan for any status they are of no use.
_PENDING = literal_column(f"'{Status.PENDING}'", Text())


def is_pending(table: type[Delivery]) -> ColumnElement[bool]:
    """Return what holds for deliveries that are neither delivered nor dead."""
    return table.status == _PENDING


def is_due(table: type[Delivery]) -> tuple[ColumnElement[bool], ...]:
    """Return what holds for deliveries that may be claimed now."""
    return (is_pending(table), table.due_at <= func.now(), is_free(table))


def settled(table: type[Delivery], verdicts: Iterable[tuple[Claim, Verdict]]) -> Update:
    """Record what becomes of deliveries; those whose lease was still held come back."""
    # In one order, as in `leases.renewed`: a worker renews leases while it records outcomes.
    claims, judged = zip(*sorted(verdicts, key=lambda one: one[0].id), strict=True)
    given = arrays(
        ("id", Uuid(), [claim.id for claim in claims]),
        ("lease", BigInteger(), [claim.lease for claim in claims]),
        ("status", Text(), [verdict.status.value for verdict in judged]),
        ("wait", Float(), [verdict.wait_seconds for verdict in judged]),
        ("tries", BigInteger(), [int(verdict.is_counted) for verdict in judged]),
    )
    return (
        update(table)
        .where(is_held(table, given))
        .values(
            status=given.c.status,
            attempts=table.attempts + given.c.tries,
            due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, given.c.wait),
            leased_until=None,
            settled_at=case((given.c.status != Status.PENDING, func.now())),
        )
        .returning(table.id)
    )
