"""Leases: the right to work on a row that one process has, for as long as it renews it.

All times are PostgreSQL's. Each lease has a number, the fencing token: whoever lost it to another
process changes nothing any more. One that runs out frees what a dead process held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    TableValuedAlias,
    Update,
    Uuid,
    and_,
    column,
    func,
    literal,
    or_,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeEngine


class Leased:
    """The columns that every table has whose rows are worked on under leases."""

    id: Mapped[UUID] = mapped_column(
        primary_key=True, server_default=func.uuidv7(monotonic=True), sort_order=-1
    )
    # The fencing token: each claim counts it up.
    lease: Mapped[int] = mapped_column(server_default="0")
    leased_until: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A row that this process alone works on, for as long as it renews the lease."""

    id: UUID
    lease: int


def is_free(table: type[Leased]) -> ColumnElement[bool]:
    """Whether no process holds a row."""
    return or_(table.leased_until.is_(None), table.leased_until <= func.now())


def leased(table: type[Leased], lease_seconds: float) -> Update:
    """Take the lease of rows; the caller says which, and what of them it needs back."""
    until = func.now() + timedelta(seconds=lease_seconds)
    return update(table).values(lease=table.lease + 1, leased_until=until)


def renewed(table: type[Leased], claims: Iterable[Lease], lease_seconds: float) -> Update:
    """Keep the leases of `claims`; those that are still held come back."""
    until = func.now() + timedelta(seconds=lease_seconds)
    return _held(table, claims).values(leased_until=until).returning(table.id)


def released(table: type[Leased], claims: Iterable[Lease]) -> Update:
    """Hand the leases of `claims` back, so that another worker can go on at once."""
    return _held(table, claims).values(leased_until=None)


def _held(table: type[Leased], claims: Iterable[Lease]) -> Update:
    """Update what is leased under the numbers of `claims`."""
    held = sorted(claims, key=lambda claim: claim.id)
    given = arrays(
        ("id", Uuid(), [claim.id for claim in held]),
        ("lease", BigInteger(), [claim.lease for claim in held]),
    )
    return update(table).where(is_held(table, given))


def is_held(table: type[Leased], given: TableValuedAlias) -> ColumnElement[bool]:
    """Whether the lease is still out under this number: recording twice counts once."""
    return and_(
        table.id == given.c.id, table.lease == given.c.lease, table.leased_until.is_not(None)
    )


def arrays(*columns: tuple[str, TypeEngine[Any], Sequence[object]]) -> TableValuedAlias:
    """Return rows made of one array a column, so that however many there are, it is one plan."""
    given = [literal(list(values), ARRAY(kind)) for _name, kind, values in columns]
    shape = [column(name, kind) for name, kind, _values in columns]
    return func.unnest(*given).table_valued(*shape, name="given").render_derived()


def one_of(ids: Iterable[UUID]) -> ColumnElement[list[UUID]]:
    """Return any of `ids`, however many they are, in one plan."""
    return func.any(literal(list(ids), ARRAY(Uuid())))
