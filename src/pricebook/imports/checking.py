"""Checking: which rows can be taken, and what is wrong with the others."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Insert,
    Row,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.imports.cells import Habits, is_plain, plain_tags, value
from pricebook.imports.judging import LONGEST_CELL, SHOWN_CHARACTERS, Refusal, judged
from pricebook.imports.staging import Slice, Stage, driver_connection, item_of, items

_AT_ONCE = 200
# What is wrong with a cell comes first, by its place in the row.
_PLACE_OF_DOUBLE = 100
_PLACE_OF_MISSING = 101


async def understand_tags(session: AsyncSession, stage: Stage, habits: Habits) -> None:
    """Read each distinct cell of tags once."""
    if "tags" in stage.columns:
        found = insert(stage.tag_sets).from_select(["cell", "tags"], plain_tags(stage, habits))
        await session.execute(found)
    await session.execute(text(f"ANALYZE {stage.tag_sets.name}"))


async def check(session: AsyncSession, stage: Stage, habits: Habits, part: Slice) -> None:
    """Look at each row of a part: read what is not plain, or note why it is refused."""
    doubtful = _doubtful(stage, habits, part).execution_options(yield_per=_AT_ONCE)
    async for rows in (await session.stream(doubtful)).partitions():
        await _judge(session, stage, habits, rows)


def _doubtful(stage: Stage, habits: Habits, part: Slice) -> Select[*tuple[Any, ...]]:
    sent = stage.sent.c
    # One character more than is taken, so that what is too long still is.
    cells = [func.left(sent[name], LONGEST_CELL + 1).label(name) for name in stage.columns]
    return select(sent.line, sent.problem, *cells).where(
        part.holds(stage.sent), is_plain(stage, habits).is_not(true())
    )


async def _judge(
    session: AsyncSession, stage: Stage, habits: Habits, rows: Iterable[Row[*tuple[Any, ...]]]
) -> None:
    read, refused = [], []
    for line, problem, *cells in rows:
        values, refusals = judged(problem, dict(zip(stage.columns, cells, strict=True)), habits)
        if refusals:
            refused += [_record(line, place, one) for place, one in enumerate(refusals)]
        else:
            read.append((line, *(values[name] for name in stage.columns)))
    connection = await driver_connection(session)
    await connection.copy_records_to_table(stage.read.name, records=read)
    await connection.copy_records_to_table(stage.refused.name, records=refused)


def _record(line: int, place: int, refusal: Refusal) -> Sequence[object]:
    return (line, place, refusal.column, refusal.value, refusal.detail)


async def refuse_doubles(session: AsyncSession, stage: Stage, habits: Habits) -> None:
    """Refuse every row whose SKU another one has: which of them counts is not ours to say."""
    sent = stage.sent.c
    sku = habits.text_in_sql(sent.sku)
    is_judged = and_(sent.problem.is_(None), sku != "")
    twice = select(sku.label("sku")).where(is_judged).group_by(sku).having(func.count() > 1)
    await session.execute(_refuse(stage, _named_doubles(stage, twice, sku)))


def _named_doubles(stage: Stage, twice: Select[str], sku: Any) -> Select[*tuple[Any, ...]]:  # noqa: ANN401 -- an expression
    line = stage.sent.c.line
    doubles = twice.cte("twice").prefix_with("MATERIALIZED")
    alike = {"partition_by": sku, "order_by": line}
    other = case(
        (func.row_number().over(**alike) == 1, func.lead(line).over(**alike)),
        else_=func.first_value(line).over(**alike),
    )
    detail = func.concat("stands in line ", other, " as well")
    return (
        _wrong_sku(stage, sku, _PLACE_OF_DOUBLE, detail)
        .join(doubles, doubles.c.sku == sku)
        .where(stage.sent.c.problem.is_(None))
    )


async def refuse_unknown(session: AsyncSession, stage: Stage, habits: Habits, part: Slice) -> None:
    """Refuse rows of items that there are not, where the file lacks what a new one needs."""
    sku = habits.text_in_sql(stage.sent.c.sku)
    lacking = " or ".join(f"“{name}”" for name in stage.missing)
    detail = literal(f"is not in the list, and the file has no {lacking} for a new item")
    known = item_of(select(items.c.id), stage.sent, sku).lateral("known")
    unknown = (
        _wrong_sku(stage, sku, _PLACE_OF_MISSING, detail)
        .outerjoin(known, true())
        .where(part.holds(stage.sent), is_not_refused(stage), known.c.id.is_(None))
    )
    await session.execute(_refuse(stage, unknown))


def _wrong_sku(stage: Stage, sku: Any, place: int, detail: Any) -> Select[*tuple[Any, ...]]:  # noqa: ANN401 -- expressions
    shown = func.left(sku, SHOWN_CHARACTERS)
    return select(
        stage.sent.c.line, literal(place), literal("sku"), shown, cast(detail, Text)
    ).select_from(stage.sent)


def _refuse(stage: Stage, refusals: Select[*tuple[Any, ...]]) -> Insert:
    return insert(stage.refused).from_select(list(stage.refused.c.keys()), refusals)


def is_not_refused(stage: Stage) -> Any:  # noqa: ANN401 -- a condition
    """Whether nothing is known against a row."""
    refused = stage.refused.c
    return ~exists().where(refused.line == stage.sent.c.line).correlate(stage.sent)


def taken(stage: Stage, habits: Habits, part: Slice) -> Select[*tuple[Any, ...]]:
    """Select the values of the rows of a part that are not refused."""
    sent, read = stage.sent.c, stage.read.c
    values = [
        case((read.line.is_(None), value(stage, habits, name)), else_=read[name]).label(name)
        for name in stage.columns
    ]
    rows = stage.sent.outerjoin(stage.read, read.line == sent.line)
    if "tags" in stage.columns:
        rows = rows.outerjoin(stage.tag_sets, stage.tag_sets.c.cell == sent.tags)
    return (
        select(sent.line, *values)
        .select_from(rows)
        .where(part.holds(stage.sent), is_not_refused(stage))
    )
