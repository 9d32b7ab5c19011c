"""Bringing the schema to where this version needs it: planned, one at a time, never in the way.

Each step has a transaction of its own, and waits for a lock for a second at most, since everyone
who wants the table after it waits behind it. A step that does not get its locks is rolled back and
tried again after a pause. What takes something away is done only on demand.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import StringIO

from alembic import command
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pricebook.core.database import lone_engine
from pricebook.core.destructive import contracting_statements
from pricebook.core.schema_head import (
    SchemaError,
    alembic_config,
    current_head,
    database_url,
    directly,
    needed_head,
    revisions,
)
from pricebook.core.settings import Settings

# Two migrations at once wait for each other on this lock. An arbitrary number of ours.
_MIGRATION_LOCK = 7_427_423_665
_OTHERS_SECONDS = 1_800.0
_LOOK_SECONDS = 0.5
# How often a step is tried that does not get its locks, and how long it waits between.
_TRIES = 60
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
# SQLSTATE: lock_not_available, deadlock_detected.
_LOCKED = ("55P03", "40P01")

Say = Callable[[str], object]


class ContractRefusedError(SchemaError):
    """A step takes away what the version before may still use, and nobody has allowed it."""


class LocksNotHadError(SchemaError):
    """Others held locks for so long that a step could not be done."""


@dataclass(frozen=True)
class Step:
    """One revision on the way."""

    revision: str
    title: str
    contracting: Sequence[str]
    """Its statements that take something away; none if it only adds."""

    def __str__(self) -> str:
        """Say what it is, in a line."""
        kind = "contract" if self.contracting else "expand"
        return f"  {self.revision}  {kind:<8}  {self.title}"


def migrate(
    settings: Settings,
    say: Say = lambda _line: None,
    *,
    to: str = "head",
    allow_contract: bool = False,
) -> None:
    """Bring the database to a revision, by default the head that this code needs.

    Raises:
        ContractRefusedError: A step takes something away, and `allow_contract` is not given.
        LocksNotHadError: A step did not get its locks, however often it was tried.
        SchemaError: There is no way from the database's revision to that one.

    """
    target, settings = _resolved(to), directly(settings)
    if asyncio.run(current_head(settings)) != target:
        asyncio.run(_migrate(settings, say, target, allow_contract=allow_contract))
    say(f"The schema is at {target}.")


def show_plan(settings: Settings, say: Say, *, to: str = "head") -> bool:
    """Say what `migrate` would do, and return whether that is anything."""
    current, target = asyncio.run(current_head(directly(settings))), _resolved(to)
    steps = plan(current, target)
    _announce(say, steps, current, target)
    return bool(steps)


def plan(current: str | None, target: str | None) -> list[Step]:
    """Return the steps from one revision to another, in order.

    Raises:
        SchemaError: There is no way: the database is further on, or was made by a newer version.

    """
    if current is not None and current not in revisions():
        message = f"the schema is at {current}, which this Pricebook does not know"
        raise SchemaError(message)
    scripts = ScriptDirectory.from_config(alembic_config())
    way = list(scripts.iterate_revisions(target or "base", "base"))[::-1]
    known = [script.revision for script in way]
    if current is not None and current not in known:
        message = f"the schema is at {current}, which is past {target}: see migrations/README.md"
        raise SchemaError(message)
    ahead = way[known.index(current) + 1 :] if current is not None else way
    return [_step(script) for script in ahead]


def _step(script: Script) -> Step:
    title = script.doc.partition("\n")[0].rstrip(".")
    return Step(script.revision, title, tuple(contracting_statements(sql_of(script))))


def sql_of(script: Script) -> str:
    """Return the SQL of a revision, as it would be run."""
    written = StringIO()
    config = alembic_config()
    config.output_buffer = written
    before = script.down_revision or "base"
    command.upgrade(config, f"{before}:{script.revision}", sql=True)
    return written.getvalue()


def _resolved(to: str) -> str | None:
    if to == "head":
        return needed_head()
    if to not in revisions():
        message = f"there is no revision {to}; there are {', '.join(sorted(revisions()))}"
        raise SchemaError(message)
    return to


def _announce(say: Say, steps: Sequence[Step], current: str | None, target: str | None) -> None:
    begin = current or "nothing"
    say(f"From {begin} to {target}:" if steps else f"The schema is at {target}: nothing to do.")
    for step in steps:
        say(str(step))
        for statement in step.contracting:
            say(f"        {statement}")


async def _migrate(
    settings: Settings, say: Say, target: str | None, *, allow_contract: bool
) -> None:
    async with _connection(settings) as connection:
        await _wait_for_others(connection, say)
        # Another may have done it meanwhile.
        current = await current_head(settings)
        steps = plan(current, target)
        _announce(say, steps, current, target)
        # In a database that was empty there is nothing that anyone uses.
        if current is not None and not allow_contract:
            _refuse_contracts(steps)
        for step in steps:
            await _take(connection, step, say)


@asynccontextmanager
async def _connection(settings: Settings) -> AsyncIterator[AsyncConnection]:
    engine = lone_engine(database_url(settings))
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def _wait_for_others(connection: AsyncConnection, say: Say) -> None:
    """Take the lock of migrations, which the connection holds to its end.

    It is asked for again and again: to wait inside PostgreSQL would hold a snapshot, for which an
    index that the other builds online would wait in turn.
    """
    ends_at = time.monotonic() + _OTHERS_SECONDS
    is_told = False
    while not await _has_lock(connection):
        if not is_told:
            say("Another migration is under way: waiting for its end.")
            is_told = True
        if time.monotonic() > ends_at:
            message = f"another migration has been under way for {_OTHERS_SECONDS / 60:.0f} min"
            raise LocksNotHadError(message)
        await asyncio.sleep(_LOOK_SECONDS)


async def _has_lock(connection: AsyncConnection) -> bool:
    statement = text("SELECT pg_try_advisory_lock(:key)")
    has_it = await connection.scalar(statement, {"key": _MIGRATION_LOCK})
    await connection.commit()
    return bool(has_it)


def _refuse_contracts(steps: Sequence[Step]) -> None:
    for step in steps:
        if step.contracting:
            message = (
                f"{step.revision} takes away what the version before may still use: once no "
                "process of that version runs any more, say --allow-contract"
            )
            raise ContractRefusedError(message)


async def _take(connection: AsyncConnection, step: Step, say: Say) -> None:
    """Do one step, however often it takes until nobody holds the locks that it needs."""
    began = time.monotonic()
    for pause in _pauses():
        try:
            await connection.run_sync(_upgrade, step.revision)
        except DBAPIError as error:
            await connection.rollback()
            if getattr(error.driver_exception, "sqlstate", None) not in _LOCKED:
                raise
            say(f"  {step.revision}  others hold its locks: again in {pause:.1f} s")
            await asyncio.sleep(pause)
        else:
            say(f"  {step.revision}  done in {time.monotonic() - began:.1f} s")
            return
    message = (
        f"{step.revision} did not get its locks in {_TRIES} tries: see who holds them in "
        "pg_stat_activity, and run `pricebook migrate` again"
    )
    raise LocksNotHadError(message)


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    for _ in range(_TRIES):
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _upgrade(connection: Connection, revision: str) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
