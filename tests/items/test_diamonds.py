"""53,940 diamonds, priced: what goes in comes out again, to the cent."""

from collections import Counter, defaultdict
from decimal import Decimal
from itertools import islice

import pytest
from sqlalchemy import func, select
from tests.diamonds import read_diamonds

from pricebook.core.outbox import EventRecord

BATCH = 1_000
PUT_ONE_BY_ONE = 300


@pytest.fixture(scope="module")
def diamonds():
    return read_diamonds()


async def load(client, items):
    singly, rest = items[:PUT_ONE_BY_ONE], iter(items[PUT_ONE_BY_ONE:])
    for item in singly:
        content = {name: value for name, value in item.items() if name != "sku"}
        reply = await client.put(f"/v1/items/by-sku/{item['sku']}", json=content)
        assert reply.status_code == 201
    while batch := [{"op": "create", "item": item} for item in islice(rest, BATCH)]:
        reply = await client.post("/v1/items/batch", json={"operations": batch})
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["results"]) == len(batch)


async def count(client, **filters):
    params = {**filters, "count": "exact", "limit": 1, "fields": "id"}
    reply = await client.get("/v1/items", params=params)
    return int(reply.headers["x-total-count"])


async def prices(client, **filters):
    """Walk through all pages."""
    params = {**filters, "fields": "sku,price", "limit": 200}
    reply, found = await client.get("/v1/items", params=params), {}
    while True:
        found |= {item["sku"]: Decimal(item["price"]) for item in reply.json()["items"]}
        if "next" not in reply.links:
            return found
        reply = await client.get(reply.links["next"]["url"])


async def test_diamonds_are_found_again(api, editor, viewer, session, diamonds):
    await load(api.as_(editor), diamonds)
    reader = api.as_(viewer)

    expected = {item["sku"]: Decimal(item["price"]) for item in diamonds}
    assert len(expected) == 53_940
    assert await count(reader) == len(diamonds)
    for sort in ("sku", "-price"):
        found = await prices(reader, sort=sort)
        assert found == expected
        assert sum(found.values()) == Decimal(212_135_217)

    with_tag = Counter(tag for item in diamonds for tag in item["tags"])
    assert len(with_tag) == 5 + 7 + 8
    for tag, number in with_tag.items():
        assert await count(reader, tag=tag) == number, tag

    by_tags = defaultdict(dict)
    for item in diamonds:
        by_tags[tuple(item["tags"])][item["sku"]] = Decimal(item["price"])
    for tags, group in islice(sorted(by_tags.items()), 0, None, 9):
        assert await prices(reader, tag=tags, sort="price") == group, tags

    for low, high in ((0, 326), (326, 326), (999, 1_000), ("999.01", "999.99"), (15_000, 20_000)):
        between = sum(Decimal(low) <= price <= Decimal(high) for price in expected.values())
        assert await count(reader, price_min=low, price_max=high) == between, (low, high)

    for words in ("2.01 carat", "IDEAL 1.5", "fair", "colour j, 6.5", "diamond-0001", "ruby"):
        texts = (f"{item['sku']} {item['name']} {item['description']}" for item in diamonds)
        matching = sum(
            all(word in text.lower() for word in words.lower().split()) for text in texts
        )
        assert await count(reader, q=words) == matching, words

    for item in diamonds[:: len(diamonds) // 50]:
        found = (await reader.get(f"/v1/items/by-sku/{item['sku']}")).json()
        assert found["tags"] == sorted(item["tags"])
        assert (found["name"], found["description"]) == (item["name"], item["description"])
        assert found["price"] == f"{item['price']}.0000"

    told = select(func.count(EventRecord.subject_id.distinct())).where(
        EventRecord.type == "item.created"
    )
    assert await session.scalar(told) == len(diamonds)
