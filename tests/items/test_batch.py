"""Many operations at once: in order, all of them or none."""

import asyncio
from uuid import uuid4

import pytest


def new(sku, **fields):
    item = {"sku": sku, "name": f"Thing {sku}", "price": "1.5", "currency": "EUR", **fields}
    return {"op": "create", "item": item}


def update(item, **changes):
    return {"op": "update", "id": str(item.id), "changes": changes}


def delete(item):
    return {"op": "delete", "id": str(item.id)}


@pytest.fixture
def send(api, editor):
    async def send_operations(*operations):
        body = {"operations": list(operations)}
        return await api.as_(editor).post("/v1/items/batch", json=body)

    return send_operations


@pytest.fixture
def skus(api, editor):
    async def read():
        reply = await api.as_(editor).get("/v1/items", params={"sort": "sku", "fields": "sku"})
        return [item["sku"] for item in reply.json()["items"]]

    return read


async def test_each_operation_has_its_result_in_its_place(api, editor, make_item, send):
    one, two = await make_item(sku="A"), await make_item(sku="B", price=3)
    reply = await send(new("C"), update(two, price=4), delete(one), new("D", cost=1))
    assert reply.status_code == 200
    results = reply.json()["results"]
    assert [result["op"] for result in results] == ["create", "update", "delete", "create"]
    assert set(results[2]) == {"op", "id"}
    assert results[2]["id"] == str(one.id)
    assert (results[1]["item"]["price"], results[1]["item"]["version"]) == ("4.0000", 2)
    for result in (results[0], results[1], results[3]):
        item = (await api.as_(editor).get(f"/v1/items/{result['id']}")).json()
        assert item == result["item"]


async def test_a_thousand_creates_keep_their_order(api, editor, send, recorded):
    names = [f"N-{number:04d}" for number in range(1_000)]
    operations = [
        new(name, description=None if number % 2 else "Even", tags=[f"t{number % 3}"])
        for number, name in enumerate(names)
    ]
    reply = await send(*operations)
    results = reply.json()["results"]
    assert [result["item"]["sku"] for result in results] == names
    assert [result["id"] for result in results] == sorted(result["id"] for result in results)
    events = await recorded()
    assert [event.payload["sku"] for event in events] == names
    assert {event.type for event in events} == {"item.created"}
    counted = await api.as_(editor).get("/v1/items?limit=1&count=exact&tag=t1&q=even")
    assert counted.headers["x-total-count"] == str(len(range(4, 1_000, 6)))


async def test_operations_take_effect_in_their_order(make_item, send, skus, recorded):
    item, other = await make_item(sku="A"), await make_item(sku="B")
    reply = await send(
        delete(item),
        new("A"),
        update(other, sku="C"),
        new("B"),
        update(other, sku="D", price=2),
        update(other, price=3),
        new("C"),
    )
    assert reply.status_code == 200, reply.text
    assert await skus() == ["A", "B", "C", "D"]
    assert [result["item"]["version"] for result in reply.json()["results"][1:]] == [
        *(1, 2, 1, 3, 4, 1),
    ]
    assert [(event.type, event.payload["sku"]) for event in await recorded()] == [
        ("item.deleted", "A"),
        ("item.created", "A"),
        ("item.updated", "C"),
        ("item.created", "B"),
        ("item.updated", "D"),
        ("item.price_changed", "D"),
        ("item.updated", "D"),
        ("item.price_changed", "D"),
        ("item.created", "C"),
    ]


@pytest.mark.parametrize(
    ("spoil", "status", "pointer"),
    [
        (lambda item: new("A"), 409, "/operations/3/item/sku"),
        (lambda item: new("NEW"), 409, "/operations/3/item/sku"),
        (lambda item: new("Z", price="x"), 422, "/operations/3/item/price"),
        (lambda item: new("Z", colour="red"), 422, "/operations/3/item/colour"),
        (lambda item: {"op": "create"}, 422, "/operations/3/item"),
        (lambda item: {"op": "burn"}, 422, "/operations/3"),
        (lambda item: {}, 422, "/operations/3"),
        (lambda item: [], 422, "/operations/3"),
        (lambda item: {**delete(item), "id": str(uuid4())}, 404, "/operations/3/id"),
        (lambda item: {**update(item), "id": str(uuid4())}, 404, "/operations/3/id"),
        (lambda item: {**update(item), "id": "A"}, 422, "/operations/3/id"),
        (lambda item: update(item, sku="NEW"), 409, "/operations/3/changes/sku"),
        (lambda item: update(item, name=None), 422, "/operations/3/changes/name"),
        (lambda item: {**update(item), "version": 1}, 412, "/operations/3/version"),
        (lambda item: {**delete(item), "version": 9}, 412, "/operations/3/version"),
        (lambda item: {**delete(item), "version": 2**63}, 412, "/operations/3/version"),
    ],
)
async def test_one_bad_operation_spoils_all_and_is_named(
    make_item, send, skus, recorded, spoil, status, pointer
):
    item, gone = await make_item(sku="A"), await make_item(sku="B")
    reply = await send(new("NEW"), delete(gone), update(item, price=9), spoil(item), new("LAST"))
    assert reply.status_code == status, reply.text
    assert pointer in [error["pointer"] for error in reply.json()["errors"]]
    assert await skus() == ["A", "B"]
    assert await recorded() == []


async def test_a_deleted_item_cannot_be_changed_later_in_the_batch(make_item, send, skus):
    item = await make_item(sku="A")
    reply = await send(delete(item), update(item, price=1))
    assert reply.status_code == 404
    assert reply.json()["errors"][0]["pointer"] == "/operations/1/id"
    assert await skus() == ["A"]


async def test_an_update_that_changes_nothing_leaves_no_trace(make_item, send, recorded):
    item = await make_item(price=3)
    reply = await send(update(item, price="3.0"))
    assert reply.json()["results"][0]["item"]["version"] == 1
    assert await recorded() == []


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_1_to_1000_operations(send, count):
    reply = await send(*(new(f"N-{number}") for number in range(count)))
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "/operations"


async def test_batches_that_touch_the_same_items_wait_for_each_other(api, editor, make_item, send):
    items = [await make_item() for _ in range(20)]
    orders = [items, items[::-1], items[10:] + items[:10]] * 4
    replies = await asyncio.gather(
        *(
            send(*(update(item, notes=f"{number}") for item in order))
            for number, order in enumerate(orders)
        )
    )
    assert {reply.status_code for reply in replies} == {200}
    versions = {
        (await api.as_(editor).get(f"/v1/items/{item.id}")).json()["version"] for item in items
    }
    assert versions == {13}
