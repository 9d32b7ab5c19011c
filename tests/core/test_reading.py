"""The fast road for reads: just the columns that are shown, values never in the SQL."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import bindparam, func, literal, select

from pricebook.core.database import Base
from pricebook.core.outbox import EventRecord, record
from pricebook.core.reading import Compiled, columns_of
from pricebook.core.schemas import Output
from pricebook.items.models import Item
from pricebook.users.events import UserUpdated
from pricebook.users.models import User


class Shown(Output):
    id: UUID
    name: str


def test_a_read_names_the_columns_that_are_shown_and_no_other():
    sql = Compiled(select(*columns_of(Shown, User))).sql
    assert "users.name" in sql
    assert "hashed_password" not in sql
    assert "email" not in sql
    assert columns_of(Shown, User, only=["name"]) == [User.name]


def test_values_are_bound_and_never_part_of_the_sql():
    statement = Compiled(
        select(Item.id).where(Item.sku == bindparam("sku"), Item.name == "'; DROP TABLE items")
    )
    assert "DROP" not in statement.sql
    assert sorted(statement.arguments({"sku": "H-1"})) == ["'; DROP TABLE items", "H-1"]


async def test_rows_come_as_the_model_shows_them(database, make_item):
    item = await make_item(name="Mallet")
    by_sku = Compiled(select(*columns_of(Shown, Item)).where(Item.sku == bindparam("sku")))
    assert await database.reads.row(by_sku, sku=item.sku) == {"id": item.id, "name": "Mallet"}
    assert await database.reads.rows(by_sku, sku="nowhere") == []
    assert await database.reads.row(by_sku, sku="nowhere") is None
    assert await database.reads.value(by_sku, sku="nowhere") is None


async def test_a_cancelled_read_leaves_its_connection_usable(database):
    slow = Compiled(select(func.pg_sleep(30)))
    reads = [asyncio.create_task(database.reads.value(slow)) for _ in range(8)]
    await asyncio.sleep(0.1)
    for read in reads:
        read.cancel()
    assert {type(one) for one in await asyncio.gather(*reads, return_exceptions=True)} == {
        asyncio.CancelledError
    }
    quick = Compiled(select(literal(7)))
    answers = await asyncio.gather(*(database.reads.value(quick) for _ in range(50)))
    assert answers == [7] * 50


@pytest.mark.parametrize("table", Base.metadata.tables)
async def test_every_table_can_be_read(table, database):
    count = Compiled(select(func.count()).select_from(Base.metadata.tables[table]))
    assert await database.reads.value(count) >= 0


async def test_json_comes_as_what_it_says(database, session, viewer):
    record(session, UserUpdated(user_id=viewer.id, changed=["name"]))
    await session.commit()
    payload = await database.reads.value(Compiled(select(EventRecord.payload)))
    assert payload == {"user_id": str(viewer.id), "changed": ["name"]}
