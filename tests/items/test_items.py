"""Items, one at a time: who may do what with them, and what comes out."""

import pytest

HAMMER = {"sku": "H-1", "name": "Hammer", "price": "12.5", "currency": "EUR"}
PUBLIC = {"id", "sku", "name", "description", "price", "currency", "tags", "updated_at"}
SEEN_BY_VIEWERS = PUBLIC | {"tax_rate", "version", "created_at"}
SEEN_BY_STAFF = SEEN_BY_VIEWERS | {"cost", "notes"}


async def test_a_new_item_comes_back_with_its_place_and_its_version(api, editor):
    reply = await api.as_(editor).post("/v1/items", json=HAMMER)
    item = reply.json()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/v1/items/{item['id']}"
    assert reply.headers["etag"] == '"1"'
    assert set(item) == SEEN_BY_STAFF
    assert item["price"] == "12.5000"
    assert item["tax_rate"] == "10.500"
    assert item["tags"] == []
    assert item["created_at"] == item["updated_at"]
    assert (await api.as_(editor).get(reply.headers["location"])).json() == item


async def test_money_keeps_its_last_digit(api, editor):
    for text in ("9999999999.9999", "0.0001", "0"):
        new = {**HAMMER, "sku": text, "price": text, "cost": text}
        item = (await api.as_(editor).post("/v1/items", json=new)).json()
        assert float(item["price"]) == float(text)
        assert item["price"] == item["cost"] == f"{text}{'.0000' if text == '0' else ''}"


async def test_a_number_in_json_is_as_exact_as_a_string(api, editor):
    body = '{"sku": "X", "name": "X", "currency": "EUR", "price": 1234567890.0123}'
    headers = {"Content-Type": "application/json"}
    reply = await api.as_(editor).post("/v1/items", content=body, headers=headers)
    assert reply.json()["price"] == "1234567890.0123"


async def test_excess_scale_is_refused_and_never_rounded(api, editor):
    reply = await api.as_(editor).post("/v1/items", json={**HAMMER, "price": "0.00001"})
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/price"]


async def test_tags_are_a_set(api, editor):
    new = {**HAMMER, "tags": [" steel ", "hand tools", "steel"]}
    reply = await api.as_(editor).post("/v1/items", json=new)
    assert reply.json()["tags"] == ["hand tools", "steel"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sku", ""),
        ("sku", " H-1"),
        ("sku", "H\t1"),
        ("sku", "H\u200b1"),
        ("sku", "x" * 65),
        ("sku", None),
        ("name", "   "),
        ("name", "two\nlines"),
        ("name", "x" * 201),
        ("description", "x" * 10_001),
        ("price", "-0.01"),
        ("price", "10000000000"),
        ("price", True),
        ("price", ""),
        ("currency", "EURO"),
        ("currency", "ABC"),
        ("currency", "XAU"),
        ("tax_rate", "100.001"),
        ("tax_rate", "-1"),
        ("tags", ["a;b"]),
        ("tags", [""]),
        ("tags", ["x" * 51]),
        ("tags", [f"tag {number}" for number in range(51)]),
        ("tags", "steel"),
        ("cost", "-1"),
        ("notes", 1),
        ("id", "01a20437-54eb-74f7-9cc2-0da9d3307bc5"),
        ("version", 7),
        ("created_at", "2026-01-01T00:00:00Z"),
    ],
)
async def test_a_field_that_is_not_valid_is_named_and_nothing_is_written(
    api, editor, make_item, recorded, field, value
):
    item = await make_item()
    writer = api.as_(editor)
    replies = [
        await writer.post("/v1/items", json={**HAMMER, field: value}),
        await writer.put(f"/v1/items/{item.id}", json={**HAMMER, field: value}),
        await writer.patch(f"/v1/items/{item.id}", json={field: value}),
    ]
    for reply in replies:
        assert reply.status_code == 422, reply.text
        assert reply.json()["errors"][0]["pointer"].startswith(f"/{field}")
    assert (await writer.get(f"/v1/items/{item.id}")).json()["version"] == 1
    assert await recorded() == []


async def test_two_items_never_share_an_sku(api, editor, make_item):
    await make_item(sku="H-1")
    other = await make_item(sku="H-2")
    writer = api.as_(editor)
    replies = [
        await writer.post("/v1/items", json=HAMMER),
        await writer.put(f"/v1/items/{other.id}", json=HAMMER),
        await writer.patch(f"/v1/items/{other.id}", json={"sku": "H-1"}),
    ]
    for reply in replies:
        assert reply.status_code == 409
        assert reply.json()["type"].endswith("/sku-taken")
        assert reply.json()["errors"][0]["pointer"] == "/sku"


async def test_patch_changes_what_was_sent_and_nothing_else(api, editor, make_item):
    item = await make_item(description="Heavy", cost=7, notes="From Anna", tags=["steel"])
    url = f"/v1/items/{item.id}"
    before = (await api.as_(editor).get(url)).json()
    reply = await api.as_(editor).patch(url, json={"price": 13, "description": None})
    after = reply.json()
    assert reply.status_code == 200
    assert reply.headers["etag"] == '"2"'
    assert after["updated_at"] > before["updated_at"]
    assert after == {
        **before,
        "price": "13.0000",
        "description": None,
        "version": 2,
        "updated_at": after["updated_at"],
    }


async def test_null_clears_only_what_may_be_empty(api, editor, make_item):
    item = await make_item(description="Heavy", cost=7, notes="From Anna")
    url = f"/v1/items/{item.id}"
    for field in ("description", "cost", "notes"):
        assert (await api.as_(editor).patch(url, json={field: None})).json()[field] is None
    for field in ("sku", "name", "price", "currency", "tax_rate", "tags"):
        reply = await api.as_(editor).patch(url, json={field: None})
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["pointer"] == f"/{field}"


async def test_put_replaces_the_whole_item(api, editor, make_item):
    item = await make_item(description="Heavy", cost=7, tags=["steel"], tax_rate=20)
    reply = await api.as_(editor).put(f"/v1/items/{item.id}", json=HAMMER)
    after = reply.json()
    assert reply.status_code == 200
    assert (after["id"], after["sku"], after["version"]) == (str(item.id), "H-1", 2)
    assert (after["description"], after["cost"], after["tags"]) == (None, None, [])
    assert after["tax_rate"] == "10.500"


async def test_a_change_that_changes_nothing_leaves_no_trace(api, editor, make_item, recorded):
    item = await make_item(price="12.5000", tags=["a", "b"])
    url = f"/v1/items/{item.id}"
    before = (await api.as_(editor).get(url)).json()
    same = {"price": "12.50", "tags": ["b", "a"], "name": " Hammer "}
    for changes in ({}, same):
        reply = await api.as_(editor).patch(url, json=changes)
        assert reply.json() == before
        assert reply.headers["etag"] == '"1"'
    assert await recorded() == []


async def test_a_deleted_item_is_gone(api, editor, make_item, recorded):
    item = await make_item(sku="H-1", tags=["steel"])
    url = f"/v1/items/{item.id}"
    reply = await api.as_(editor).delete(url)
    assert (reply.status_code, reply.content) == (204, b"")
    for gone in (url, f"{url}/public", f"{url}/name", "/v1/items/by-sku/H-1"):
        missing = await api.as_(editor).get(gone)
        assert missing.status_code == 404
        assert missing.json()["type"].endswith("/item-not-found")
    assert (await api.as_(editor).delete(url)).status_code == 404
    assert [(event.type, event.subject_id) for event in await recorded()] == [
        ("item.deleted", item.id)
    ]


async def test_each_change_is_told_without_what_is_internal(api, editor, recorded):
    writer = api.as_(editor)
    new = {**HAMMER, "tags": ["steel"], "cost": "3.33", "notes": "From Anna"}
    url = (await writer.post("/v1/items", json=new)).headers["location"]
    await writer.patch(url, json={"cost": "4.44", "notes": "From Berta", "name": "Sledge"})
    await writer.patch(url, json={"price": "13", "currency": "USD"})
    await writer.delete(url)
    events = await recorded()
    item_id = url.rpartition("/")[2]
    facts = {"item_id": item_id, "sku": "H-1", "tags": ["steel"]}
    assert [(event.type, event.payload) for event in events] == [
        ("item.created", {**facts, "name": "Hammer", "price": "12.5000", "currency": "EUR"}),
        ("item.updated", {**facts, "changed": ["name", "cost", "notes"]}),
        ("item.updated", {**facts, "changed": ["price", "currency"]}),
        (
            "item.price_changed",
            {
                **facts,
                "name": "Sledge",
                "old_price": "12.5000",
                "new_price": "13.0000",
                "old_currency": "EUR",
                "currency": "USD",
            },
        ),
        ("item.deleted", facts),
    ]
    assert {event.actor_id for event in events} == {editor.id}


async def test_each_role_sees_its_fields(api, viewer, editor, admin, make_item):
    item = await make_item(cost=7, notes="From Anna")
    url = f"/v1/items/{item.id}"
    for path in (url, "/v1/items/by-sku/" + item.sku):
        assert set((await api.as_(viewer).get(path)).json()) == SEEN_BY_VIEWERS
        assert set((await api.as_(editor).get(path)).json()) == SEEN_BY_STAFF
        assert set((await api.as_(admin).get(path)).json()) == SEEN_BY_STAFF
    for client in (api, api.as_(viewer), api.as_(editor)):
        assert set((await client.get(f"{url}/public")).json()) == PUBLIC
        [listed] = (await client.get("/v1/items/public")).json()["items"]
        assert set(listed) == PUBLIC
    [listed] = (await api.as_(viewer).get("/v1/items")).json()["items"]
    assert set(listed) == SEEN_BY_VIEWERS


async def test_only_staff_may_write(api, viewer, make_item, recorded):
    item = await make_item()
    url = f"/v1/items/{item.id}"
    delete = {"operations": [{"op": "delete", "id": str(item.id)}]}
    for client, status in ((api, 401), (api.as_(viewer), 403)):
        replies = [
            await client.post("/v1/items", json=HAMMER),
            await client.put(url, json=HAMMER),
            await client.patch(url, json={"price": 1}),
            await client.delete(url),
            await client.put("/v1/items/by-sku/H-9", json={"name": "X"}),
            await client.post("/v1/items/batch", json=delete),
        ]
        assert [reply.status_code for reply in replies] == [status] * len(replies)
    assert await recorded() == []


async def test_reading_needs_credentials_except_in_public(api, make_item):
    item = await make_item()
    url = f"/v1/items/{item.id}"
    for path in (url, f"{url}/name", "/v1/items", "/v1/items/suggest?q=a", "/v1/items/by-sku/A"):
        assert (await api.get(path)).status_code == 401
    for path in (f"{url}/public", "/v1/items/public"):
        assert (await api.get(path)).status_code == 200


async def test_the_name_alone(api, viewer, make_item):
    item = await make_item(name="Sledge")
    reply = await api.as_(viewer).get(f"/v1/items/{item.id}/name")
    assert reply.json() == {"id": str(item.id), "name": "Sledge"}


async def test_sparse_fields_give_just_those(api, viewer, make_item):
    item = await make_item(sku="H-1")
    sparse = {"id": str(item.id), "price": "12.5000"}
    for path in (f"/v1/items/{item.id}", "/v1/items/by-sku/H-1", f"/v1/items/{item.id}/public"):
        reply = await api.as_(viewer).get(path, params={"fields": "price,id"})
        assert reply.json() == sparse
        assert "etag" in reply.headers
    reply = await api.as_(viewer).get("/v1/items", params={"fields": "price,id", "sort": "name"})
    assert reply.json() == {"items": [sparse], "next_cursor": None}


@pytest.mark.parametrize(
    ("fields", "status"),
    [("id,colour", 422), ("search_text", 422), ("", 422), ("id,,price", 422), ("id,cost", 403)],
)
async def test_fields_that_cannot_be_shown_are_refused(api, viewer, make_item, fields, status):
    item = await make_item()
    for path in (f"/v1/items/{item.id}", "/v1/items"):
        reply = await api.as_(viewer).get(path, params={"fields": fields})
        assert reply.status_code == status
        assert reply.json()["errors"][0]["pointer"].startswith("query/fields")


async def test_what_is_not_public_cannot_be_asked_for_in_public(api, make_item):
    item = await make_item()
    for name in ("cost", "notes", "tax_rate"):
        for path in (f"/v1/items/{item.id}/public", "/v1/items/public"):
            reply = await api.get(path, params={"fields": name})
            assert reply.status_code == 403
            assert reply.json()["errors"][0]["pointer"] == f"query/fields/{name}"


async def test_an_unknown_query_parameter_is_named(api, viewer, make_item):
    item = await make_item()
    for path in (f"/v1/items/{item.id}", "/v1/items", "/v1/items/public", "/v1/items/suggest?q=a"):
        reply = await api.as_(viewer).get(path, params={"q": "a", "colour": "red"})
        assert reply.status_code == 422
        assert "query/colour" in [error["pointer"] for error in reply.json()["errors"]]


async def test_an_sku_may_hold_any_printable_character(api, editor):
    for sku in ("a/b", "a b", "é", "100%", "?x=1#y", "a+b", "x" * 64, "商品"):
        new = {**HAMMER, "sku": sku}
        item = (await api.as_(editor).post("/v1/items", json=new)).json()
        path = "".join(f"%{byte:02X}" for byte in sku.encode())
        assert (await api.as_(editor).get(f"/v1/items/by-sku/{path}")).json() == item


async def test_put_by_sku_adds_and_then_replaces(api, editor, recorded):
    writer = api.as_(editor)
    body = {"name": "Hammer", "price": "12.5", "currency": "EUR"}
    first = await writer.put("/v1/items/by-sku/H-1", json=body)
    second = await writer.put("/v1/items/by-sku/H-1", json={**body, "sku": "H-1", "price": "13"})
    third = await writer.put("/v1/items/by-sku/H-1", json={**body, "price": "13"})
    assert [reply.status_code for reply in (first, second, third)] == [201, 200, 200]
    assert first.headers["location"] == f"/v1/items/{first.json()['id']}"
    assert "location" not in second.headers
    assert second.json()["id"] == first.json()["id"]
    assert [reply.json()["version"] for reply in (first, second, third)] == [1, 2, 2]
    assert [event.type for event in await recorded()] == [
        "item.created",
        "item.updated",
        "item.price_changed",
    ]


async def test_put_by_sku_refuses_another_sku_in_the_body(api, editor, recorded):
    body = {"name": "Hammer", "price": "12.5", "currency": "EUR", "sku": "H-2"}
    reply = await api.as_(editor).put("/v1/items/by-sku/H-1", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "/sku"
    assert await recorded() == []


async def test_suggestions_begin_with_the_likeliest(api, viewer, make_item):
    for sku, name in (("X-1", "Blue hammer"), ("X-2", "Hammer"), ("HAM", "Vice"), ("Y", "Saw")):
        await make_item(sku=sku, name=name)
    reply = await api.as_(viewer).get("/v1/items/suggest", params={"q": "ham"})
    assert [item["name"] for item in reply.json()["items"]] == ["Vice", "Hammer", "Blue hammer"]
    assert set(reply.json()["items"][0]) == {"id", "sku", "name"}
    one = await api.as_(viewer).get("/v1/items/suggest", params={"q": "ham", "limit": 1})
    assert len(one.json()["items"]) == 1
