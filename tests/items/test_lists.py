"""Lists of items: pages, orders, filters and search."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def shelf(session, make_item):
    """Twelve items, whose prices, names and moments repeat."""
    return [
        await make_item(
            sku=f"S-{number:02d}",
            name=("Screw", "bolt", "Änker")[number % 3],
            description=f"A thing of steel, no {number}",
            price=Decimal(number // 4),
            currency=("EUR", "USD")[number % 2],
            tags=[("red", "blue")[number % 2], f"tag {number % 3}"],
            created_at=FIRST + timedelta(days=number // 2),
            updated_at=FIRST + timedelta(days=number),
        )
        for number in range(12)
    ]


async def walk(client, path, **params):
    """Follow the Link headers to the end; return every item."""
    found, reply = [], await client.get(path, params=params)
    while True:
        assert reply.status_code == 200, reply.text
        found += reply.json()["items"]
        if "next" not in reply.links:
            assert reply.json()["next_cursor"] is None
            return found
        reply = await client.get(reply.links["next"]["url"])


async def test_an_empty_list_is_a_page(api, viewer):
    reply = await api.as_(viewer).get("/v1/items")
    assert reply.json() == {"items": [], "next_cursor": None}
    assert "link" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/items", "/v1/items/public"])
@pytest.mark.parametrize("limit", [1, 5, 12, 200])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ["price", "name", "sku", "created_at", "updated_at"])
async def test_pages_give_each_item_once_in_the_order_asked_for(
    api, viewer, shelf, field, sign, limit, path
):
    found = await walk(api.as_(viewer), path, sort=f"{sign}{field}", limit=limit)
    expected = sorted(shelf, key=lambda item: (getattr(item, field), item.id), reverse=bool(sign))
    assert [item["id"] for item in found] == [str(item.id) for item in expected]


async def test_pages_stay_whole_while_the_list_changes(api, viewer, editor, shelf):
    first = await api.as_(viewer).get("/v1/items", params={"sort": "price", "limit": 6})
    await api.as_(editor).delete(f"/v1/items/{shelf[0].id}")
    await api.as_(editor).delete(f"/v1/items/{shelf[5].id}")
    rest = await api.as_(viewer).get(first.links["next"]["url"])
    seen = [item["sku"] for item in first.json()["items"] + rest.json()["items"]]
    assert seen == [f"S-{number:02d}" for number in range(12)]


async def test_the_next_page_keeps_the_filters(api, viewer, shelf):
    found = await walk(api.as_(viewer), "/v1/items", tag="red", q="steel", limit=2, fields="sku")
    assert found == [{"sku": f"S-{number:02d}"} for number in range(0, 12, 2)]


@pytest.mark.parametrize(
    ("params", "numbers"),
    [
        ({"price_min": "1"}, range(4, 12)),
        ({"price_max": "1"}, range(8)),
        ({"price_min": "1.0", "price_max": "1.00"}, range(4, 8)),
        ({"price_min": "1.0001"}, range(8, 12)),
        ({"currency": "USD"}, range(1, 12, 2)),
        ({"tag": "blue"}, range(1, 12, 2)),
        ({"tag": ["blue", "tag 1"]}, [1, 7]),
        ({"tag": ["blue", "nothing"]}, []),
        ({"tag": "Blue"}, []),
        ({"updated_since": "2026-01-11T00:00:00Z"}, [10, 11]),
        ({"updated_since": "2026-01-11T02:00:00+02:00"}, [10, 11]),
        ({"q": "s-07"}, [7]),
        ({"q": "SCREW"}, [0, 3, 6, 9]),
        ({"q": "änker"}, [2, 5, 8, 11]),
        ({"q": "ÄNKER"}, [2, 5, 8, 11]),
        ({"q": "steel bolt"}, [1, 4, 7, 10]),
        ({"q": "no 11"}, [11]),
        ({"q": "%"}, []),
        ({"q": "S_0"}, []),
        ({"q": "\\"}, []),
        ({"q": " ".join(["steel"] * 12)}, []),
        ({"q": "steel", "tag": "red", "price_max": "0", "currency": "EUR"}, [0, 2]),
    ],
)
async def test_filters(api, viewer, shelf, params, numbers):
    params = {**params, "sort": "sku", "count": "exact"}
    reply = await api.as_(viewer).get("/v1/items", params=params)
    assert [item["sku"] for item in reply.json()["items"]] == [f"S-{n:02d}" for n in numbers]
    assert reply.headers["x-total-count"] == str(len(list(numbers)))


async def test_search_takes_special_characters_for_themselves(api, viewer, make_item):
    for sku in ("100%", "100 x", "a_b", "axb", "c\\d", "c/d"):
        await make_item(sku=sku)
    for typed, found in (("100%", "100%"), ("a_b", "a_b"), ("c\\d", "c\\d")):
        reply = await api.as_(viewer).get("/v1/items", params={"q": typed, "fields": "sku"})
        assert reply.json()["items"] == [{"sku": found}]
        reply = await api.as_(viewer).get("/v1/items/suggest", params={"q": typed})
        assert [item["sku"] for item in reply.json()["items"]] == [found]


async def test_internal_fields_are_not_searched(api, viewer, make_item):
    await make_item(notes="From Anna")
    reply = await api.as_(viewer).get("/v1/items", params={"q": "anna"})
    assert reply.json()["items"] == []


async def test_a_total_is_counted_only_when_asked_for(api, viewer, shelf):
    reply = await api.as_(viewer).get("/v1/items", params={"limit": 1})
    assert "x-total-count" not in reply.headers
    reply = await api.as_(viewer).get("/v1/items", params={"limit": 1, "count": "exact"})
    assert reply.headers["x-total-count"] == "12"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "ten"),
        ("sort", "cost"),
        ("sort", "--price"),
        ("count", "roughly"),
        ("price_min", "-1"),
        ("price_max", "NaN"),
        ("currency", "EURO"),
        ("updated_since", "yesterday"),
        ("updated_since", "2026-01-01T00:00:00"),
        ("updated_since", "0001-01-01T00:00:00+14:00"),
        ("q", "   "),
        ("q", "x" * 101),
        ("tag", "a;b"),
        ("cursor", "x"),
        ("cursor", "é"),
        ("cursor", "W10"),
        ("cursor", "eA=="),
    ],
)
async def test_a_parameter_that_is_not_valid_is_named(api, viewer, name, value):
    for path in ("/v1/items", "/v1/items/public"):
        reply = await api.as_(viewer).get(path, params={name: value})
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["pointer"].startswith(f"query/{name}")


async def test_a_cursor_of_another_order_is_refused(api, viewer, shelf):
    page = await api.as_(viewer).get("/v1/items", params={"sort": "price", "limit": 1})
    params = {"sort": "name", "cursor": page.json()["next_cursor"]}
    reply = await api.as_(viewer).get("/v1/items", params=params)
    assert reply.status_code == 422
    assert reply.json()["type"].endswith("/cursor-invalid")
