"""How PostgreSQL goes about an import: by look-ups, whatever it believes of the list."""

import pytest
from sqlalchemy import text
from tests.conftest import connected, one_host

from pricebook.imports import applying, checking
from pricebook.imports.cells import Habits
from pricebook.imports.staging import Slice, Stage, driver_connection
from pricebook.imports.tasks import _by_index

MANY = """
    INSERT INTO items (sku, name, price, currency)
    SELECT 'P-' || number, 'Nail', 1, 'EUR' FROM generate_series(1, 5000) AS number
"""
COLUMNS = {"whole": ("sku", "name", "price", "currency", "tags"), "part": ("sku", "price")}


@pytest.fixture
async def taken_for_empty(settings, session):
    """Vacuum the list amid a great import, whose rows are not committed yet."""
    await session.execute(text(MANY))
    async with connected(one_host(settings)) as other:
        # All of its pages, since those that are skipped count for what was found there before;
        # and none is given back, for which it would wait five seconds for this transaction.
        await other.execute("VACUUM (DISABLE_PAGE_SKIPPING, TRUNCATE FALSE) items")
        known = "SELECT relpages > 0 AND reltuples = 0 FROM pg_class WHERE relname = 'items'"
        assert await other.fetchval(known)
    await session.commit()


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("what", [applying.differences, applying.written])
async def test_items_are_looked_up_by_their_sku_though_the_list_is_taken_for_empty(
    taken_for_empty, session, what, columns
):
    stage = Stage(columns)
    await stage.create(session)
    rows = checking.taken(stage, Habits(), Slice(0, 1, 0))
    compiled = what(stage, rows).compile(dialect=session.bind.dialect)
    values = {**compiled.params, "sample_size": 20}
    connection = await driver_connection(session)
    async with _by_index(session):
        found = await connection.fetch(
            f"EXPLAIN {compiled}", *[values[name] for name in compiled.positiontup]
        )
    lines = [line for (line,) in found if " on items " in line and "Insert" not in line]
    assert lines
    assert all("Index Scan using uq_items_sku on items" in line for line in lines)
    await session.rollback()
