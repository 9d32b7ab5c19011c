"""Staging: the rows of a file in temporary tables, which live and die with the transaction."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import asyncpg
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import UserDefinedType

from pricebook.items.models import CollatedText, Item, Tags
from pricebook.items.schemas import ItemPatch

FIELDS = tuple(ItemPatch.model_fields)
"""The fields of an item that a file may have, in the order in which changes are told."""

items = Item.metadata.tables[Item.__tablename__]

_SLICE_ROWS = 20_000
# As many kinds of files, told apart by their columns, are known at once.
_KINDS = 16
# A hash or sort of that many rows, and the pages of a large index, fit in.
_MEMORY = "64MB"


class _TupleId(UserDefinedType[tuple[int, int]]):
    """PostgreSQL's `tid`: where a row lies, as page and place."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "TID"


class Stage:
    """The temporary tables of an import; each line of the file is known by its number.

    They are named and made alike in each import of the same columns, and described once: SQLAlchemy
    keeps what it has compiled for a table, and for a hundred tables that are alike a hundred times.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Hold these fields of items, in the order of the file."""
        self.columns = tuple(columns)
        self.fields = tuple(name for name in FIELDS if name in columns)
        self.sent = _temporary(
            "import_sent",
            Column("problem", Text),
            *(Column(name, CollatedText) for name in columns),
            is_keyed=False,
        )
        """Rows as they were sent, and what is wrong with one as a whole."""
        self.read = _temporary("import_read", *(_typed(name) for name in columns))
        """Rows that only `ItemPatch` could read."""
        self.refused = _temporary(
            "import_refused",
            Column("place", BigInteger, primary_key=True),
            Column("column", Text),
            Column("value", Text),
            Column("detail", Text),
        )
        """What is wrong with rows, one thing each."""
        self.tag_sets = Table(
            "import_tag_sets",
            MetaData(),
            Column("cell", CollatedText, primary_key=True),
            Column("tags", Tags),
            prefixes=["TEMPORARY"],
            postgresql_on_commit="DROP",
        )
        """What the distinct cells of tags mean."""

    @classmethod
    def of(cls, columns: Sequence[str]) -> "Stage":
        """Return the stage for files of these columns."""
        return _stage_of(tuple(columns))

    @property
    def changing(self) -> tuple[str, ...]:
        """The fields that an item may get new values of."""
        return tuple(name for name in self.fields if name != "sku")

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that a new item needs and the file lacks."""
        needed = (name for name in FIELDS if not items.c[name].nullable)
        return tuple(
            name
            for name in needed
            if name not in self.columns and items.c[name].server_default is None
        )

    async def create(self, session: AsyncSession) -> None:
        """Make the tables, empty."""
        for table in (self.sent, self.read, self.refused, self.tag_sets):
            await session.execute(CreateTable(table))
        await session.execute(text(f"SET LOCAL work_mem = '{_MEMORY}'"))

    async def fill(self, session: AsyncSession, rows: AsyncIterator[bytes]) -> int:
        """Copy rows, in COPY's text format, and return how many they are."""
        connection = await driver_connection(session)
        done = await connection.copy_to_table(
            self.sent.name, source=rows, columns=list(self.sent.c.keys())
        )
        await session.execute(text(f"ANALYZE {self.sent.name}"))
        return int(done.removeprefix("COPY "))


@lru_cache(_KINDS)
def _stage_of(columns: tuple[str, ...]) -> Stage:
    return Stage(columns)


def _temporary(name: str, *columns: Column[Any], is_keyed: bool = True) -> Table:
    line = Column("line", BigInteger, primary_key=is_keyed, autoincrement=False)
    return Table(
        name, MetaData(), line, *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP"
    )


def _typed(name: str) -> Column[Any]:
    return Column(name, items.c[name].type)


def item_of(
    item: Select[*tuple[Any, ...]], beside: FromClause, sku: ColumnElement[str]
) -> Select[*tuple[Any, ...]]:
    """Select the item of the SKU that stands in a row, by a look-up of its own.

    A join would do, but for what PostgreSQL may believe: a vacuum amid a great import takes the
    table for empty, and then every row would be held against every other.
    """
    return item.where(items.c.sku == sku).limit(1).correlate(beside)


async def driver_connection(session: AsyncSession) -> asyncpg.Connection:
    """Return asyncpg's own connection, in the transaction of a session that has begun it."""
    connection = await (await session.connection()).get_raw_connection()
    return connection.driver_connection


@dataclass(frozen=True, slots=True)
class Slice:
    """Some 10,000s of rows that lie next to each other."""

    first_page: int
    end_page: int
    rows_before: int

    def holds(self, sent: Table) -> ColumnElement[bool]:
        """Whether a row lies in it."""
        place: ColumnElement[Any] = literal_column(f"{sent.name}.ctid", _TupleId())
        return and_(place >= _place(self.first_page), place < _place(self.end_page))


def _place(page: int) -> ColumnElement[Any]:
    return cast(literal((page, 0), _TupleId()), _TupleId())


async def slices(session: AsyncSession, stage: Stage, rows: int) -> list[Slice]:
    """Return all of a file, in parts that are worked on one by one, in the file's order."""
    size = func.pg_relation_size(stage.sent.name) / func.current_setting("block_size").cast(
        BigInteger
    )
    pages = int(await session.scalar(select(cast(size, BigInteger))) or 0)
    step = max(1, pages * _SLICE_ROWS // max(rows, 1))
    return [Slice(first, first + step, rows * first // pages) for first in range(0, pages, step)]
