"""The report of an import, and the file of the rows that it refuses."""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.guarding import guard, unguard
from pricebook.imports.cells import Habits
from pricebook.imports.dialects import DELIMITERS, Dialect
from pricebook.imports.staging import Stage

_MOST_REFUSALS = 100
_MOST_CHANGES = 20
_SHOWN_CHARACTERS = 200
_AT_ONCE = 500

Report = dict[str, Any]


@dataclass(slots=True)
class Changes:
    """What an import changes, or would change."""

    new: int = 0
    changed: int = 0
    price_changes: int = 0
    sample: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sample_room(self) -> int:
        """How many more are shown."""
        return _MOST_CHANGES - len(self.sample)

    def add(self, stage: Stage, found: Row[*tuple[Any, ...]]) -> None:
        """Count what was found in a part of the file."""
        self.new += found.new
        self.changed += found.found - found.new
        self.price_changes += found.price_changes
        self.sample += [_shown(stage, row) for row in found.sample or ()]


def _shown(stage: Stage, row: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: (row[f"old_{name}"], row[f"new_{name}"]) for name in stage.changing}
    return {
        "line": row["line"],
        "sku": row["new_sku"],
        "change": "new" if row["is_new"] else "changed",
        "fields": {
            name: [_cut(old), _cut(new)] for name, (old, new) in fields.items() if old != new
        },
    }


def _cut(value: Any) -> Any:  # noqa: ANN401 -- as JSON has it
    is_long = isinstance(value, str) and len(value) > _SHOWN_CHARACTERS
    return f"{value[:_SHOWN_CHARACTERS]}…" if is_long else value


async def count_refused(session: AsyncSession, stage: Stage) -> int:
    """Return how many rows are refused."""
    return int(await session.scalar(select(func.count(stage.refused.c.line.distinct()))) or 0)


async def report_of(
    session: AsyncSession, stage: Stage, dialect: Dialect, changes: Changes, rows: int
) -> Report:
    """Return what the owner of an import is told of its rows."""
    refused = await count_refused(session, stage)
    return {
        "rows": rows,
        "new": changes.new,
        "changed": changes.changed,
        "unchanged": rows - refused - changes.new - changes.changed,
        "refused": refused,
        "price_changes": changes.price_changes,
        "refusals": await _first_refusals(session, stage),
        "sample": changes.sample,
        "columns": list(dialect.columns),
        "unknown_columns": list(dialect.unknown_columns),
        "ignored_columns": list(dialect.ignored_columns),
        "encoding": dialect.encoding,
        "delimiter": dialect.delimiter,
        "has_errors_csv": refused > 0,
    }


async def _first_refusals(session: AsyncSession, stage: Stage) -> list[dict[str, Any]]:
    refused = stage.refused.c
    shown = select(refused.line, refused.column, refused.value, refused.detail)
    first = shown.order_by(refused.line, refused.place).limit(_MOST_REFUSALS)
    return [dict(one) for one in (await session.execute(first)).mappings()]


async def errors_csv(
    session: AsyncSession, stage: Stage, dialect: Dialect, habits: Habits
) -> AsyncIterator[bytes]:
    """Yield the refused rows as they were sent, each with its line and the reason."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter=DELIMITERS[dialect.delimiter])
    writer.writerow([*stage.columns, "line", "reason"])
    stream = await session.stream(_refused_rows(stage).execution_options(yield_per=_AT_ONCE))
    async for rows in stream.partitions():
        for *cells, line, reason in rows:
            writer.writerow([*(_cell(cell, habits) for cell in cells), line, reason])
        yield written.getvalue().encode()
        written.seek(0)
        written.truncate()


def _refused_rows(stage: Stage) -> Any:  # noqa: ANN401 -- a Select of as many columns as the file has
    sent, refused = stage.sent.c, stage.refused.c
    words = func.concat_ws(": ", refused.column, refused.detail)
    reasons = (
        select(
            refused.line,
            func.string_agg(words, literal("; ")).aggregate_order_by(refused.place).label("reason"),
        )
        .group_by(refused.line)
        .subquery("reasons")
    )
    cells = [sent[name] for name in stage.columns]
    return (
        select(*cells, sent.line, reasons.c.reason)
        .join(reasons, reasons.c.line == sent.line)
        .order_by(sent.line)
    )


def _cell(cell: str, habits: Habits) -> str:
    """Neutralise what may not have been; an empty cell stays one, since it means another thing."""
    return guard(unguard(cell)) if cell and habits.is_guarded else cell
