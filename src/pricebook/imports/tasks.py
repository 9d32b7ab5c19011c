"""The task of an import: one transaction, so that it is done as a whole, or not at all."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import PATIENT
from pricebook.core.files import FileMissingError
from pricebook.imports import applying, checking
from pricebook.imports.cells import Habits
from pricebook.imports.dialects import Dialect
from pricebook.imports.errors import NotUtf8Error
from pricebook.imports.reading import CsvFile, CsvOptions, open_csv
from pricebook.imports.report import Changes, count_refused, errors_csv, report_of
from pricebook.imports.staging import Slice, Stage, slices
from pricebook.jobs.run import JobRefused, Result, Run

# One import writes at a time: two would wait for each other's rows, and might do so in a circle.
_LOCK = 7_226_431_908_501_377
_FALLBACK = "windows-1252"
_SWITCH = (
    "SELECT set_config(name, '{}', true) "
    "FROM unnest(ARRAY['enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', "
    "'enable_seqscan']) AS name"
)

_COUNTED = "{new:,} new, {changed:,} changed, {unchanged:,} unchanged, {refused:,} refused."

What = Callable[[Stage, applying.Statement], applying.Statement]


async def import_items(run: Run) -> Result:
    """Bring a file of items into the list, or find out what that would change.

    Raises:
        JobRefused: The file cannot be read, or rows of it are refused and nothing was changed.

    """
    await run.tools.files.delete([run.params["errors_file"]])
    try:
        return await _import(run, run.params["encoding"])
    except NotUtf8Error:
        run.say("The file is not UTF-8 throughout; it is read again, as Windows-1252.")
        return await _import(run, _FALLBACK)
    except FileMissingError as error:
        message = "The file that was sent is gone; send it again."
        raise JobRefused(message) from error


async def _import(run: Run, encoding: str) -> Result:
    file = await open_csv(run.tools.files.read(run.params["file"]), _options(run, encoding))
    async with run.tools.database.sessions() as session:
        work = await _staged(run, session, file)
        await work.check()
        await work.compare()
        result = await work.result()
        if result["applied"]:
            await run.complete(session, result)
            await session.commit()
        return result


def _options(run: Run, encoding: Any) -> CsvOptions:  # noqa: ANN401 -- one of the words for it
    return CsvOptions(
        encoding=encoding,
        delimiter=run.params["delimiter"],
        columns=run.params["columns"],
        max_unpacked_bytes=run.tools.settings.imports.max_unpacked_bytes,
    )


async def _staged(run: Run, session: AsyncSession, file: CsvFile) -> "_Import":
    stage = Stage.of(file.dialect.columns)
    habits = Habits(run.params["guarded"], run.params["decimal"] == "comma")
    await stage.create(session)
    rows = await stage.fill(session, _told(run, file))
    run.say(
        f"Read {rows:,} rows; {file.dialect.encoding}, cells parted by {file.dialect.delimiter}."
    )
    return _Import(
        run, session, file.dialect, stage, habits, rows, await slices(session, stage, rows)
    )


async def _told(run: Run, file: CsvFile) -> AsyncIterator[bytes]:
    async for piece in file.copy():
        run.progress("reading", file.bytes_read, run.params["size"])
        yield piece


@dataclass(slots=True)
class _Import:
    """The rows of one file on their way into the list, in the transaction of a session."""

    run: Run
    session: AsyncSession
    dialect: Dialect
    stage: Stage
    habits: Habits
    rows: int
    parts: list[Slice]
    changes: Changes = field(default_factory=Changes)

    @property
    def _is_to_apply(self) -> bool:
        """Whether it is not only asked what would change."""
        return bool(self.run.params["mode"] == "apply")

    async def check(self) -> None:
        """Find what is wrong with rows, whatever the list has."""
        await checking.understand_tags(self.session, self.stage, self.habits)
        for part in self._each("checking"):
            await checking.check(self.session, self.stage, self.habits, part)
        await checking.refuse_doubles(self.session, self.stage, self.habits)

    async def compare(self) -> None:
        """Hold the rows against the list, and write what differs if that is wanted."""
        async with _by_index(self.session):
            if await self._may_write():
                await self._wait_for_turn()
            if self.stage.missing:
                for part in self._each("comparing"):
                    await self._refuse_unknown(part)
            await (self._write() if await self._may_write() else self._only_compare())

    async def _may_write(self) -> bool:
        """Whether there is nothing against it so far."""
        return self._is_to_apply and (
            self.run.params["skip_refused"] or not await count_refused(self.session, self.stage)
        )

    async def _wait_for_turn(self) -> None:
        if await self.session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
            return
        self.run.say("Another import is writing; this one waits for its end.")
        self.run.progress("waiting")
        await self.session.execute(text("SET LOCAL lock_timeout = 0"))
        await self.session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        await self.session.execute(text(f"SET LOCAL lock_timeout = {PATIENT['lock_timeout']}"))

    async def _write(self) -> None:
        for part in self._each("writing"):
            found = await self._find(applying.written, part)
            if self.stage.missing and found.found < found.candidates:
                # Items may have been deleted meanwhile.
                await self._refuse_unknown(part)

    async def _only_compare(self) -> None:
        for part in self._each("comparing"):
            await self._find(applying.differences, part)

    async def _find(self, what: What, part: Slice) -> Row[*tuple[Any, ...]]:
        rows = checking.taken(self.stage, self.habits, part)
        room = {"sample_size": self.changes.sample_room}
        found = (await self.session.execute(what(self.stage, rows), room)).one()
        self.changes.add(self.stage, found)
        return found

    async def _refuse_unknown(self, part: Slice) -> None:
        await checking.refuse_unknown(self.session, self.stage, self.habits, part)

    def _each(self, phase: str) -> Iterator[Slice]:
        for part in self.parts:
            self.run.progress(phase, part.rows_before, self.rows)
            yield part
        self.run.progress(phase, self.rows, self.rows)

    async def result(self) -> Result:
        """Return the report, once the refused rows are in a file.

        Raises:
            JobRefused: Rows are refused, and the others alone are not wanted.

        """
        refused = await count_refused(self.session, self.stage)
        if refused:
            rows = errors_csv(self.session, self.stage, self.dialect, self.habits)
            await self.run.tools.files.write(self.run.params["errors_file"], rows)
        may_apply = await self._may_write()
        found = await report_of(self.session, self.stage, self.dialect, self.changes, self.rows)
        report = {"mode": self.run.params["mode"], "applied": may_apply, **found}
        self.run.say(_COUNTED.format(**report))
        if self._is_to_apply and not may_apply:
            raise JobRefused(_sentence(refused, self.rows), result=report)
        return report


@asynccontextmanager
async def _by_index(session: AsyncSession) -> AsyncIterator[None]:
    """Have items looked up one by one, whatever PostgreSQL believes of tables that grow so fast."""
    await session.execute(text(_SWITCH.format("off")))
    yield
    await session.execute(text(_SWITCH.format("on")))


def _sentence(refused: int, rows: int) -> str:
    are = "is" if refused == 1 else "are"
    return f"{refused:,} of {rows:,} rows {are} refused; nothing was changed."
