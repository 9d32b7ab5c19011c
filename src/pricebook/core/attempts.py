"""Tries that are counted in PostgreSQL, so that every process brakes the same guesser.

A try at a secret falls under some `Budget`s, which a failed one is charged to in a transaction of
its own: the refusal that follows rolls the request's own back. What is limited whether it fails or
not is charged by `spend`, in the request's transaction.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, cast

import orjson
from fastapi import Depends, Request
from pydantic import SecretStr
from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Index,
    Integer,
    LargeBinary,
    Select,
    bindparam,
    case,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.database import Base, Database
from pricebook.core.errors import TooManyRequests
from pricebook.core.reading import Compiled
from pricebook.core.security import PasswordHasher, Verdict
from pricebook.core.settings import AuthSettings


class FailedAttempts(Base):
    """How often one kind of try failed, or was made at all, in the present window.

    The key is a digest: what people type where an address belongs may be their password.
    """

    __tablename__ = "failed_attempts"
    __table_args__ = (
        CheckConstraint("failures > 0", name="failures"),
        Index("ix_failed_attempts_expires_at", "expires_at"),
    )

    key: Mapped[bytes] = mapped_column(primary_key=True)
    failures: Mapped[int]
    expires_at: Mapped[datetime]


class TooManyFailures(TooManyRequests):
    """Too many tries have failed; wait before the next."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tries of one kind there may be in a window, or may fail."""

    key: bytes
    limit: int

    @classmethod
    def of(cls, limit: int, *kind: str) -> "Budget":
        """Return the budget for the tries that share all the words of `kind`."""
        return cls(hashlib.sha256(orjson.dumps(kind)).digest(), limit)


class PasswordGate:
    """The one way to check a password: brakes on guessing, a turn to hash, a verdict."""

    def __init__(self, database: Database, hasher: PasswordHasher, settings: AuthSettings) -> None:
        """Check with `hasher`, and count in `database` as `settings` say."""
        self.hasher = hasher
        self.reads = database.reads
        self.settings = settings
        self._database = database

    async def check(
        self, password: SecretStr, hashed: str | None, budgets: Sequence[Budget]
    ) -> Verdict:
        """Check a password; without a hash, which fails, it takes the same way and time.

        Raises:
            TooManyFailures: One of the budgets is used up.
            TooManyLogIns: Too many passwords wait to be checked.

        """
        # At the door, so that a flood does not fill the queue; and again when it is this try's
        # turn, so that of many at once only those pass that the budget allows.
        await self._refuse_if_spent(budgets)
        async with self.hasher.turn() as turn:
            await self._refuse_if_spent(budgets)
            verdict = await turn.verify(password, hashed)
            if not verdict.is_right:
                await self._count_failure(budgets)
        return verdict

    async def _refuse_if_spent(self, budgets: Sequence[Budget]) -> None:
        limits = {budget.key: budget.limit for budget in budgets}
        counts = await self.reads.rows(_COUNTS, keys=list(limits))
        waits = [row["wait_seconds"] for row in counts if row["failures"] >= limits[row["key"]]]
        if waits:
            raise TooManyFailures(retry_after_seconds=max(1, *waits))

    async def _count_failure(self, budgets: Sequence[Budget]) -> None:
        window = timedelta(seconds=self.settings.failure_window_seconds)
        async with self._database.sessions.begin() as session:
            await session.execute(_count(budgets, window))


async def _gate(request: Request) -> PasswordGate:
    state = request.app.state
    return PasswordGate(state.database, state.hasher, state.settings.auth)


Gate = Annotated[PasswordGate, Depends(_gate)]
"""For routes that check a password."""


async def spend(
    session: AsyncSession, budgets: Sequence[Budget], window_seconds: float
) -> dict[Budget, int]:
    """Charge one try to each budget, in the session's transaction.

    Return those that it overdraws, with the seconds until their windows end. To be refused is to
    be rolled back, and costs nothing.
    """
    known = {budget.key: budget for budget in budgets}
    wait = func.ceil(func.extract("epoch", FailedAttempts.expires_at - func.now())).cast(Integer)
    charged = _count(budgets, timedelta(seconds=window_seconds))
    tries = await session.execute(
        charged.returning(FailedAttempts.key, FailedAttempts.failures, wait)
    )
    return {
        known[key]: max(1, seconds) for key, count, seconds in tries if count > known[key].limit
    }


async def forget_failures(session: AsyncSession, budget: Budget) -> None:
    """Start a budget anew."""
    await session.execute(delete(FailedAttempts).where(FailedAttempts.key == budget.key))


async def prune(session: AsyncSession) -> int:
    """Delete the counts of past windows; return how many."""
    past = delete(FailedAttempts).where(FailedAttempts.expires_at <= func.now())
    return cast("CursorResult[object]", await session.execute(past)).rowcount


def _counts() -> Select[bytes, int, int]:
    wait = func.extract("epoch", FailedAttempts.expires_at - func.now())
    keys = bindparam("keys", type_=ARRAY(LargeBinary))
    return select(
        FailedAttempts.key,
        FailedAttempts.failures,
        func.ceil(wait).cast(Integer).label("wait_seconds"),
    ).where(FailedAttempts.key == func.any(keys), FailedAttempts.expires_at > func.now())


_COUNTS = Compiled(_counts())


def _count(budgets: Sequence[Budget], window: timedelta) -> Insert:
    """One row a budget, in the order of the keys, so that no two requests wait for each other."""
    keys = sorted({budget.key for budget in budgets})
    first = {"failures": 1, "expires_at": func.now() + window}
    row = insert(FailedAttempts).values([{"key": key, **first} for key in keys])
    is_past = FailedAttempts.expires_at <= func.now()
    return row.on_conflict_do_update(
        index_elements=[FailedAttempts.key],
        set_={
            "failures": case((is_past, 1), else_=FailedAttempts.failures + 1),
            "expires_at": case((is_past, row.excluded.expires_at), else_=FailedAttempts.expires_at),
        },
    )
