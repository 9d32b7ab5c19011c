"""PostgreSQL writes the items that are read: to the byte what the output model would write."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pricebook.core.pagination import Page
from pricebook.items.schemas import ItemOut, ItemPublic

HOSTILE = '" \\ / \b \f \n \r \t \x01 \x1f \x7f \x80 é 漢 😀 \u2028 </script> {}[],:'
WHOLE_SECOND = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

CONTENTS = {
    "every text hostile": {
        "sku": 'a/b\\c"é😀',
        "name": HOSTILE,
        "description": HOSTILE,
        "notes": HOSTILE,
        "tags": [HOSTILE, "", "null", "a,b", "{}"],
    },
    "everything absent": {"description": None, "cost": None, "notes": None, "tags": []},
    "empty texts": {"description": "", "notes": ""},
    "smallest amounts": {"price": Decimal(0), "cost": Decimal("0.0001"), "tax_rate": Decimal(0)},
    "largest amounts": {"price": Decimal("9999999999.9999"), "tax_rate": Decimal(100)},
    "a whole second": {"created_at": WHOLE_SECOND, "updated_at": WHOLE_SECOND},
    "a few microseconds": {"created_at": WHOLE_SECOND.replace(microsecond=120)},
    "long ago": {"created_at": datetime(1, 1, 2, tzinfo=UTC)},
    "far ahead": {"updated_at": datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)},
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
async def test_an_item_is_written_as_its_output_model_would(
    api, editor, make_item, session, content
):
    item = await make_item(**content)
    await session.refresh(item)
    shown = ItemOut.model_validate(item)

    one = await api.as_(editor).get(f"/v1/items/{item.id}")
    page = await api.as_(editor).get("/v1/items")
    public = await api.get(f"/v1/items/{item.id}/public")

    assert one.content == shown.model_dump_json().encode()
    assert page.content == Page[ItemOut](items=[shown], next_cursor=None).model_dump_json().encode()
    assert public.content == ItemPublic.model_validate(item).model_dump_json().encode()


async def test_a_page_is_written_as_its_output_model_would(api, viewer, make_item):
    for number in range(3):
        await make_item(sku=f"SKU-{number}")

    reply = await api.as_(viewer).get("/v1/items", params={"limit": 2, "fields": "price,sku"})

    page = Page[ItemOut].model_validate_json(reply.content)
    assert [item.sku for item in page.items] == ["SKU-0", "SKU-1"]
    assert page.next_cursor
    assert reply.content == page.model_dump_json(exclude_unset=True).encode()
    assert reply.headers["Content-Type"] == "application/json"
