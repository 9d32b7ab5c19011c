"""Cursors: opaque, of one list and order, and never trusted."""

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricebook.core.pagination import CursorInvalid, decode_cursor, encode_cursor

JSON = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()


@given(st.lists(JSON, max_size=4))
def test_a_cursor_brings_back_what_went_in(values):
    cursor = encode_cursor("-price", values)
    assert decode_cursor(cursor, "-price", len(values)) == values
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")


def test_numbers_and_ids_go_in_as_text():
    values = [Decimal("12.5000"), UUID(int=1)]
    cursor = encode_cursor("price", values)
    assert decode_cursor(cursor, "price", 2) == ["12.5000", str(UUID(int=1))]


@given(st.text())
def test_no_other_text_is_a_cursor(text):
    with pytest.raises(CursorInvalid) as refusal:
        decode_cursor(text, "price", 2)
    assert refusal.value.pointer == "query/cursor"


@pytest.mark.parametrize(
    ("order", "count"), [("-price", 2), ("name", 2), ("price", 1), ("price", 3)]
)
def test_a_cursor_of_another_list_is_refused(order, count):
    cursor = encode_cursor("price", ["12.5000", "x"])
    with pytest.raises(CursorInvalid):
        decode_cursor(cursor, order, count)


async def test_next_keeps_the_parameters_of_the_request(api, editor, make_item):
    for number in range(3):
        await make_item(name=f"Hammer & nails {number}", tags=["a b", "é"])
    client = api.as_(editor)
    url = "/v1/items?tag=a%20b&tag=%C3%A9&q=Hammer%20%26&sort=-name&limit=1"
    seen = []
    while url:
        page = await client.get(url)
        assert page.status_code == 200
        seen += [item["name"] for item in page.json()["items"]]
        assert (page.json()["next_cursor"] is None) == ("next" not in page.links)
        url = page.links["next"]["url"] if "next" in page.links else None
    assert seen == ["Hammer & nails 2", "Hammer & nails 1", "Hammer & nails 0"]
