"""What people watch, over HTTP."""

from urllib.parse import quote
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, literal, select

from pricebook.notifications.models import TagWatch


@pytest.fixture
def watches(api):
    async def read(user):
        return (await api.as_(user).get("/v1/watches")).json()

    return read


async def test_an_item_is_watched_until_it_is_not(api, viewer, make_item, watches):
    item = await make_item(sku="H-1")
    client, path = api.as_(viewer), f"/v1/items/{item.id}/watch"
    for _ in range(2):
        assert (await client.put(path)).status_code == 204
    (watched,) = (await watches(viewer))["items"]
    assert watched.pop("created_at")
    assert watched == {"item_id": str(item.id), "sku": "H-1", "name": "Hammer"}
    for _ in range(2):
        assert (await client.delete(path)).status_code == 204
    assert await watches(viewer) == {"items": [], "tags": []}


@pytest.mark.parametrize("tag", ["tools", "hand tools", "a/b", "50 %", "?x=1", "#1", "Öl & Fett"])
async def test_a_tag_is_watched_until_it_is_not(api, viewer, watches, tag):
    client, path = api.as_(viewer), f"/v1/tags/{quote(tag, safe='')}/watch"
    for _ in range(2):
        assert (await client.put(path)).status_code == 204
    assert [one["tag"] for one in (await watches(viewer))["tags"]] == [tag]
    for _ in range(2):
        assert (await client.delete(path)).status_code == 204
    assert (await watches(viewer))["tags"] == []


async def test_what_is_not_there_cannot_be_watched(api, viewer):
    client = api.as_(viewer)
    for method in ("PUT", "DELETE"):
        reply = await client.request(method, f"/v1/items/{uuid4()}/watch")
        assert reply.status_code == 404
        assert reply.json()["type"].endswith("/item-not-found")


@pytest.mark.parametrize("tag", ["a;b", "x" * 51, " ", "a\tb"])
async def test_what_no_tag_can_be_is_refused(api, viewer, tag):
    reply = await api.as_(viewer).put(f"/v1/tags/{quote(tag, safe='')}/watch")
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "path/tag"


async def test_watches_are_ones_own(api, viewer, make_user, make_item, watches):
    item = await make_item()
    await api.as_(viewer).put(f"/v1/items/{item.id}/watch")
    assert (await watches(await make_user()))["items"] == []


async def test_an_item_that_goes_takes_its_watches_along(api, viewer, editor, make_item, watches):
    item = await make_item()
    await api.as_(viewer).put(f"/v1/items/{item.id}/watch")
    await api.as_(editor).delete(f"/v1/items/{item.id}")
    assert (await watches(viewer))["items"] == []


async def test_watches_have_a_limit(api, viewer, session, watches):
    number = func.generate_series(1, 1_000).column_valued("number")
    tags = select(literal(viewer.id), func.concat("tag ", number))
    await session.execute(insert(TagWatch).from_select(["user_id", "tag"], tags))
    await session.commit()
    client = api.as_(viewer)
    reply = await client.put("/v1/tags/one%20more/watch")
    assert reply.status_code == 409
    assert reply.json()["type"].endswith("/too-many-watches")
    assert len((await watches(viewer))["tags"]) == 1_000
    assert (await client.put("/v1/tags/tag%205/watch")).status_code == 204
    await client.delete("/v1/tags/tag%205/watch")
    assert (await client.put("/v1/tags/one%20more/watch")).status_code == 204
