"""Every order of the list, every search and every tag has an index that serves it."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import text

from pricebook.items import queries
from pricebook.items.schemas import ItemFilters

COLUMNS = queries.visible_to(None)
ENDS = {
    "price": Decimal(1),
    "name": "x",
    "sku": "x",
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
}
# The table of a test is so small that PostgreSQL would rather read and sort all of it.
NO_OTHER_WAY = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"


@pytest.fixture
async def plan(session):
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    await session.execute(text("SELECT 1"))
    await raw.execute(NO_OTHER_WAY)

    async def explain(statement, **values):
        lines = await raw.fetch(f"EXPLAIN {statement.sql}", *statement.arguments(values))
        return "\n".join(line[0] for line in lines)

    return explain


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ENDS)
async def test_a_page_is_read_in_the_order_of_its_index(plan, field, sign):
    end = {"after": ENDS[field], "after_id": UUID(int=0)}
    for is_first, values in ((True, {}), (False, end)):
        page = queries.items_page(COLUMNS, f"{sign}{field}", frozenset(), is_first=is_first)
        found = await plan(page, limit=10, **values)
        assert f"{'uq' if field == 'sku' else 'ix'}_items_{field}" in found
        assert ("Backward" in found) == bool(sign)
        # An incremental one sorts only what is equal, and no two SKUs are.
        assert "Sort  " not in found.replace("Incremental Sort  ", "")
        if not is_first:
            assert "Index Cond: (" in found


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (ItemFilters(q="hammer"), "ix_items_search_text"),
        (ItemFilters(q="blue hammer"), "ix_items_search_text"),
        (ItemFilters(tag=["steel"]), "ix_items_tags"),
        (ItemFilters(price_min=1, price_max=2), "ix_items_price"),
        (ItemFilters(updated_since="2026-01-01T00:00:00Z"), "ix_items_updated_at"),
    ],
)
async def test_a_filter_has_its_index(plan, filters, index):
    values = queries.filter_values(filters)
    assert index in await plan(queries.items_count(frozenset(values)), **values)


async def test_suggestions_have_their_index(plan):
    values = {"typed": "ham", "word_0": "%ham%", "limit": 10}
    assert "ix_items_search_text" in await plan(queries.suggestions(), **values)
