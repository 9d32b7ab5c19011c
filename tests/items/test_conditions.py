"""Entity tags: nothing is sent twice, and no change is lost to another."""

import asyncio
from itertools import chain
from uuid import uuid4

import pytest

BODY = {"name": "Hammer", "price": "12.5", "currency": "EUR"}


@pytest.fixture
def demanding(app, settings, monkeypatch):
    """A service that takes no change without If-Match."""
    http = settings.http.model_copy(update={"require_if_match": True})
    demanding = settings.model_copy(update={"http": http})
    monkeypatch.setitem(app.state._state, "settings", demanding)


@pytest.mark.parametrize("public", ["", "/public"])
@pytest.mark.parametrize("header", ['"1"', 'W/"1"', '"0", "1"', '"a,b" ,"1"', "*", ' "1" '])
async def test_what_the_client_has_is_not_sent_again(api, viewer, make_item, header, public):
    item = await make_item()
    url = f"/v1/items/{item.id}{public}"
    reply = await api.as_(viewer).get(url, headers={"If-None-Match": header})
    assert (reply.status_code, reply.content) == (304, b"")
    assert reply.headers["etag"] == '"1"'
    assert reply.headers["vary"] == "Authorization"


@pytest.mark.parametrize("header", ['"2"', "1", '"11"', 'w/"1"x', '""', ",", "", '"*"', "W/*"])
async def test_anything_else_is_answered_in_full(api, viewer, make_item, header):
    item = await make_item()
    reply = await api.as_(viewer).get(f"/v1/items/{item.id}", headers={"If-None-Match": header})
    assert reply.status_code == 200
    assert reply.json()["id"] == str(item.id)


async def test_conditions_may_come_in_several_lines(api, viewer, make_item):
    item = await make_item()
    headers = [("If-None-Match", '"7"'), ("If-None-Match", '"1"')]
    reply = await api.as_(viewer).get(f"/v1/items/{item.id}", headers=headers)
    assert reply.status_code == 304


async def test_a_changed_item_is_sent_again(api, viewer, editor, make_item):
    item = await make_item()
    url = f"/v1/items/{item.id}"
    await api.as_(editor).patch(url, json={"price": 1})
    reply = await api.as_(viewer).get(url, headers={"If-None-Match": '"1"'})
    assert (reply.status_code, reply.headers["etag"]) == (200, '"2"')


async def test_a_read_may_insist_on_a_version(api, viewer, make_item):
    item = await make_item()
    for header, status in (('"1"', 200), ('"2"', 412)):
        reply = await api.as_(viewer).get(f"/v1/items/{item.id}", headers={"If-Match": header})
        assert reply.status_code == status


@pytest.mark.parametrize("header", ['"2"', 'W/"1"', "1", "", "nonsense"])
async def test_a_stale_change_is_refused(api, editor, make_item, recorded, header):
    item = await make_item(sku="H-1")
    writer, headers = api.as_(editor), {"If-Match": header}
    url = f"/v1/items/{item.id}"
    replies = [
        await writer.put(url, json={**BODY, "sku": "H-1"}, headers=headers),
        await writer.patch(url, json={"price": 1}, headers=headers),
        await writer.delete(url, headers=headers),
        await writer.put("/v1/items/by-sku/H-1", json=BODY, headers=headers),
    ]
    for reply in replies:
        assert reply.status_code == 412
        assert reply.json()["type"].endswith("/precondition-failed")
    assert (await writer.get(url)).json()["version"] == 1
    assert await recorded() == []


@pytest.mark.parametrize("header", ["*", '"{version}"', '"0", "{version}"'])
async def test_a_change_to_the_present_version_passes(api, editor, make_item, header):
    item = await make_item(sku="H-1")
    writer = api.as_(editor)
    url = f"/v1/items/{item.id}"

    def at(version):
        return {"If-Match": header.format(version=version)}

    replies = [
        await writer.patch(url, json={"price": 1}, headers=at(1)),
        await writer.put(url, json={**BODY, "sku": "H-1"}, headers=at(2)),
        await writer.put("/v1/items/by-sku/H-1", json={**BODY, "price": 2}, headers=at(3)),
        await writer.delete(url, headers=at(4)),
    ]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 204]


async def test_a_missing_item_is_missing_whatever_the_conditions(api, editor):
    url = f"/v1/items/{uuid4()}"
    for header in ("*", '"1"'):
        reply = await api.as_(editor).patch(url, json={}, headers={"If-Match": header})
        assert reply.status_code == 404


async def test_put_by_sku_can_be_bound_to_adding_or_to_replacing(api, editor, make_item):
    await make_item(sku="there")
    add, replace = {"If-None-Match": "*"}, {"If-Match": "*"}
    for sku, headers, status in (
        ("there", add, 412),
        ("there", replace, 200),
        ("new", replace, 412),
        ("new", add, 201),
    ):
        reply = await api.as_(editor).put(f"/v1/items/by-sku/{sku}", json=BODY, headers=headers)
        assert reply.status_code == status


async def test_an_sku_that_passes_to_a_new_item_is_not_taken_for_the_old_one(api, editor):
    writer, url = api.as_(editor), "/v1/items/by-sku/H-1"
    old = await writer.put(url, json=BODY)
    assert (await writer.get(url)).headers["etag"] == old.headers["etag"]
    await writer.delete(f"/v1/items/{old.json()['id']}")
    new = await writer.put(url, json={**BODY, "price": "99"})
    assert old.json()["version"] == new.json()["version"] == 1
    reply = await writer.get(url, headers={"If-None-Match": old.headers["etag"]})
    assert (reply.status_code, reply.json()["price"]) == (200, "99.0000")
    reply = await writer.put(url, json=BODY, headers={"If-Match": old.headers["etag"]})
    assert reply.status_code == 412


async def test_the_tag_of_an_sku_guards_changes_by_id_as_well(api, editor):
    writer = api.as_(editor)
    added = await writer.put("/v1/items/by-sku/H-1", json=BODY)
    headers = {"If-Match": added.headers["etag"]}
    statuses = [
        (await writer.patch(added.headers["location"], json={"price": n}, headers=headers))
        for n in (1, 2)
    ]
    assert [reply.status_code for reply in statuses] == [200, 412]


@pytest.mark.usefixtures("demanding")
async def test_a_demanding_service_takes_no_change_without_if_match(api, editor, make_item):
    item = await make_item(sku="H-1")
    writer, url = api.as_(editor), f"/v1/items/{item.id}"
    replies = [
        await writer.put(url, json={**BODY, "sku": "H-1"}),
        await writer.patch(url, json={"price": 1}),
        await writer.delete(url),
        await writer.put("/v1/items/by-sku/H-1", json=BODY),
    ]
    for reply in replies:
        assert reply.status_code == 428
        assert reply.json()["type"].endswith("/precondition-required")
    assert (await writer.put("/v1/items/by-sku/new", json=BODY)).status_code == 201
    assert (await writer.post("/v1/items", json={**BODY, "sku": "N"})).status_code == 201
    reply = await writer.patch(url, json={"price": 1}, headers={"If-Match": '"1"'})
    assert reply.status_code == 200


@pytest.mark.usefixtures("demanding")
async def test_a_demanding_service_wants_versions_in_a_batch(api, editor, make_item):
    item = await make_item()
    change = {"op": "update", "id": str(item.id), "changes": {"price": 1}}
    for version, status in (({}, 428), ({"version": 2}, 412), ({"version": 1}, 200)):
        body = {"operations": [{**change, **version}]}
        reply = await api.as_(editor).post("/v1/items/batch", json=body)
        assert reply.status_code == status
        if status != 200:
            assert reply.json()["errors"][0]["pointer"] == "/operations/0/version"


@pytest.mark.parametrize("patches", [20, pytest.param(100, marks=pytest.mark.chaos)])
async def test_each_change_that_wins_a_race_is_one_version(api, editor, make_item, patches):
    """50 clients, each of which PATCHes with If-Match and reads again after a 412."""
    item = await make_item()
    url = f"/v1/items/{item.id}"

    async def change(client_number):
        statuses = []
        client, etag = api.as_(editor), '"1"'
        for number in range(patches):
            body = {"notes": f"{client_number}: {number}"}
            reply = await client.patch(url, json=body, headers={"If-Match": etag})
            statuses.append(reply.status_code)
            if reply.status_code == 412:
                reply = await client.get(url)
            etag = reply.headers.get("etag", etag)
        return statuses

    rounds = await asyncio.gather(*map(change, range(50)))
    statuses = list(chain.from_iterable(rounds))
    # On a machine busy with other things, 503 is an honest answer: nothing was changed.
    assert {200, 412} <= set(statuses) <= {200, 412, 503}
    final = (await api.as_(editor).get(url)).json()
    assert final["version"] == 1 + statuses.count(200)


async def test_racing_patches_of_different_fields_lose_nothing(api, editor, make_item):
    item = await make_item()
    url = f"/v1/items/{item.id}"
    changes = [{"price": 7}, {"name": "Sledge"}, {"tags": ["x"]}, {"notes": "n"}, {"cost": 3}]
    replies = await asyncio.gather(*(api.as_(editor).patch(url, json=change) for change in changes))
    assert {reply.status_code for reply in replies} == {200}
    final = (await api.as_(editor).get(url)).json()
    assert final["version"] == 6
    assert (final["price"], final["name"], final["tags"]) == ("7.0000", "Sledge", ["x"])
    assert (final["notes"], final["cost"]) == ("n", "3.0000")


async def test_racing_puts_of_one_sku_make_one_item(api, editor, recorded):
    replies = await asyncio.gather(
        *(
            api.as_(editor).put("/v1/items/by-sku/H-1", json={**BODY, "price": number})
            for number in range(100)
        )
    )
    statuses = [reply.status_code for reply in replies]
    assert statuses.count(201) == 1
    assert statuses.count(200) == 99
    assert len({reply.json()["id"] for reply in replies}) == 1
    final = (await api.as_(editor).get("/v1/items/by-sku/H-1")).json()
    assert final["version"] == 100
    assert [event.type for event in await recorded()].count("item.created") == 1


async def test_racing_puts_and_deletes_never_fail(api, editor):
    async def put():
        return await api.as_(editor).put("/v1/items/by-sku/H-1", json=BODY)

    async def remove():
        item = await put()
        return await api.as_(editor).delete(f"/v1/items/{item.json()['id']}")

    replies = await asyncio.gather(*(make() for _ in range(40) for make in (put, remove)))
    assert {reply.status_code for reply in replies} <= {200, 201, 204, 404}


async def test_racing_creates_of_one_sku_make_one_item(api, editor):
    new = {**BODY, "sku": "H-1"}
    replies = await asyncio.gather(
        *(api.as_(editor).post("/v1/items", json=new) for _ in range(30))
    )
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(201), statuses.count(409)) == (1, 29)


async def test_a_repeated_create_with_its_key_makes_one_item(api, editor, recorded):
    """100 at once: one makes the item, the rest get its answer or hear that it is on its way."""
    new, headers = {**BODY, "sku": "H-1"}, {"Idempotency-Key": "7f3a"}
    replies = await asyncio.gather(
        *(api.as_(editor).post("/v1/items", json=new, headers=headers) for _ in range(100))
    )
    made = [reply for reply in replies if reply.status_code == 201]
    assert made
    assert {reply.status_code for reply in replies} <= {201, 409}
    assert len({reply.content for reply in made}) == 1
    for reply in replies:
        if reply.status_code == 409:
            assert reply.json()["type"].endswith("/idempotency-key-in-use")
    later = await api.as_(editor).post("/v1/items", json=new, headers=headers)
    assert later.content == made[0].content
    assert later.headers["etag"] == '"1"'
    assert len(await recorded()) == 1
