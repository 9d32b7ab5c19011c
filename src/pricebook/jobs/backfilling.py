"""Backfills: rows that a migration left to be filled in, in short transactions, while all goes on.

Where it is lies in a row that each batch locks, reads and moves on in its own transaction. So a
batch is done once, whoever was killed or believes to be at work, and the next goes on from there.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import is_outage
from pricebook.core.outages import tell
from pricebook.core.principal import Role, Scope
from pricebook.jobs.models import BackfillRecord, Job
from pricebook.jobs.run import Run, Task, Tasks
from pricebook.jobs.service import NewJob, enqueue

# A batch is to hold its rows for about so long, however many that are.
_SHORT_SECONDS, _LONG_SECONDS = 0.1, 0.25
_FIRST_ROWS, _FEWEST_ROWS, _MOST_ROWS = 500, 50, 5_000
# It gives up before PostgreSQL would look for a deadlock, which might end someone else's statement.
_LOCK_MILLISECONDS = 500
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
# It rests as long as it worked; longer while a replica is late by more than that.
_LATE_SECONDS = 5.0
_REST, _LONG_REST = 1.0, 10.0
# Other than a guess would: it has a place of its own, and need not wait behind anyone.
_EXPECTED_SECONDS = 1.0

_BATCH = """
WITH batch AS MATERIALIZED (
    SELECT {key} FROM {table} {after} ORDER BY {key} LIMIT :rows
), written AS ({statement} RETURNING 1)
SELECT (SELECT count(*) FROM batch) AS seen,
       (SELECT count(*) FROM written) AS written,
       (SELECT CAST({key} AS text) FROM batch ORDER BY {key} DESC LIMIT 1) AS place
"""
_AFTER = "WHERE {key} > CAST(:place AS {key_type})"
_TABLE_ROWS = text("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = to_regclass(:name)")
# Of other users' replicas one may not know it: then none is late.
_LATE_BY = text("SELECT extract(epoch FROM max(replay_lag)) FROM pg_stat_replication")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What is to be filled in, as plain SQL: models change, it stays what its revision needs."""

    title: str
    table: str
    """What is gone through, in the order of `key`."""
    statement: str
    """An UPDATE, INSERT or DELETE for the rows whose keys are in `batch`; without RETURNING.

    It leaves alone what is filled in already: `UPDATE items SET colour = 'red' FROM batch WHERE
    items.id = batch.id AND colour IS NULL`.
    """
    key: str = "id"
    """A column that is unique and not null."""
    key_type: str = "uuid"

    def batch(self, place: str | None) -> TextClause:
        """Return the statement that does up to `rows` rows after a place."""
        after = "" if place is None else _AFTER.format(key=self.key, key_type=self.key_type)
        return text(
            _BATCH.format(key=self.key, table=self.table, after=after, statement=self.statement)
        )


Backfills = Mapping[str, Backfill]
"""Backfills by their names, of lower-case letters and underscores, 40 at most."""


def kind_of(name: str) -> str:
    """Return the kind of job that a backfill is: workers that do not know it leave it alone."""
    return f"backfill_{name}"


def tasks_of(backfills: Backfills) -> Tasks:
    """Return how each backfill is done."""
    return {
        kind_of(name): Task(
            Role.ADMIN, partial(_fill, name=name, backfill=backfill), is_upkeep=True
        )
        for name, backfill in backfills.items()
    }


async def _fill(run: Run, *, name: str, backfill: Backfill) -> None:
    await _Filling(run, name, backfill).to_the_end()


@dataclass(slots=True)
class _Filling:
    """One attempt at a backfill."""

    run: Run
    name: str
    backfill: Backfill
    rows: int = _FIRST_ROWS
    is_slow: bool = False

    async def to_the_end(self) -> None:
        total = await self._total()
        while not self.run.is_completed:
            began = time.monotonic()
            seen = await self._patiently()
            worked = time.monotonic() - began
            if not self.run.is_completed:
                self.run.progress("filling in", seen, total and max(total, seen))
                self._fit(worked)
                await asyncio.sleep(worked * await self._rest())

    async def _patiently(self) -> int:
        """Do a batch, however often it takes while others hold its rows or the database is away."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self.run.tools.database.sessions.begin() as session:
                    return await self._batch(session)
            except Exception as error:
                if not is_outage(error):
                    raise
                tell("a backfill waits", error, backfill=self.name)
                self.rows = max(self.rows // 2, _FEWEST_ROWS)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _batch(self, session: AsyncSession) -> int:
        """Do what comes next, and return how many rows have been seen; the last ends the job."""
        await session.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}"))
        mine = select(BackfillRecord).where(BackfillRecord.name == self.name)
        record = (await session.scalars(mine.with_for_update())).one()
        if record.finished_at is None:
            found = await self._found(session, record.place)
            record.move_on(found.place, found.seen, found.written)
            if found.seen < self.rows:
                record.finished_at = func.now()
        if record.finished_at is not None:
            self.run.progress("filling in", record.seen, record.seen)
            await self.run.complete(session, {"seen": record.seen, "written": record.written})
        return record.seen

    async def _found(self, session: AsyncSession, place: str | None) -> Row[*tuple[Any, ...]]:
        given = {"rows": self.rows} | ({} if place is None else {"place": place})
        return (await session.execute(self.backfill.batch(place), given)).one()

    def _fit(self, worked: float) -> None:
        """Take fewer rows at once, or more, as long as the last ones took."""
        if worked > _LONG_SECONDS:
            self.rows = max(self.rows // 2, _FEWEST_ROWS)
        elif worked < _SHORT_SECONDS:
            self.rows = min(self.rows * 2, _MOST_ROWS)

    async def _rest(self) -> float:
        """Return how much longer than its work it rests."""
        was_slow, self.is_slow = self.is_slow, await self._late_by() > _LATE_SECONDS
        if self.is_slow and not was_slow:
            self.run.say("A replica is late: it goes on slowly.")
        return _LONG_REST if self.is_slow else _REST

    async def _late_by(self) -> float:
        try:
            return float(await self._ask(_LATE_BY) or 0)
        except Exception as error:
            if not is_outage(error):
                raise
            return 0

    async def _total(self) -> int | None:
        estimate: int | None = await self._ask(_TABLE_ROWS, name=self.backfill.table)
        return estimate if estimate and estimate > 0 else None

    async def _ask(self, question: TextClause, **given: str) -> Any:  # noqa: ANN401 -- of any type
        async with self.run.tools.database.sessions.begin() as session:
            return await session.scalar(question, given)


async def start(session: AsyncSession, name: str, *, again: bool = False) -> UUID | None:
    """Have a backfill done, or gone on with; return its job, or None if it has finished.

    `again` begins it anew. One that is under way is not started a second time.
    """
    first = insert(BackfillRecord).values(name=name)
    await session.execute(first.on_conflict_do_nothing())
    mine = select(BackfillRecord).where(BackfillRecord.name == name).with_for_update()
    record = (await session.scalars(mine)).one()
    if again:
        record.begin_anew()
    elif record.finished_at is not None:
        return None
    under_way = select(Job.id).where(Job.kind == kind_of(name), Job.is_unfinished())
    return await session.scalar(under_way) or (await enqueue(session, None, _job(name))).id


def _job(name: str) -> NewJob:
    return NewJob(
        kind=kind_of(name),
        params={},
        expected_seconds=_EXPECTED_SECONDS,
        role=Role.ADMIN,
        scope=Scope.ITEMS_WRITE,
        is_told=False,
    )
