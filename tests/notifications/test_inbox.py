"""The inbox over HTTP: newest first, read and unread, and nobody else's."""

from uuid import uuid4

import pytest

from pricebook.notifications.models import Notification


@pytest.fixture
def tell(session):
    """Put an entry in someone's inbox."""

    async def make(user, **fields):
        values = {"kind": "price_changed", "data": {}, "is_in_inbox": True, **fields}
        notification = Notification(user_id=user.id, event_id=uuid4(), **values)
        session.add(notification)
        await session.commit()
        return notification

    return make


async def test_an_inbox_is_read_newest_first_page_by_page(api, viewer, tell):
    told = [str((await tell(viewer)).id) for _ in range(5)]
    client = api.as_(viewer)
    seen, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        reply = await client.get("/v1/notifications", params=params)
        page = reply.json()
        assert page["unread_count"] == 5
        seen += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        assert ('rel="next"' in reply.headers.get("link", "")) is (cursor is not None)
        if cursor is None:
            break
    assert seen == told[::-1]


async def test_an_empty_inbox_is_a_page_too(api, viewer):
    reply = await api.as_(viewer).get("/v1/notifications")
    assert reply.json() == {"items": [], "next_cursor": None, "unread_count": 0}


async def test_an_inbox_holds_nobody_elses_and_nothing_that_was_mailed_alone(
    api, viewer, make_user, tell
):
    await tell(await make_user())
    await tell(viewer, is_in_inbox=False)
    assert (await api.as_(viewer).get("/v1/notifications")).json()["items"] == []


async def test_an_entry_is_read_and_unread(api, viewer, tell):
    old, new = await tell(viewer), await tell(viewer)
    client = api.as_(viewer)
    reply = await client.patch(f"/v1/notifications/{old.id}", json={"read": True})
    assert reply.status_code == 200
    read_at = reply.json()["read_at"]
    assert read_at is not None
    page = (await client.get("/v1/notifications", params={"unread": True})).json()
    assert [entry["id"] for entry in page["items"]] == [str(new.id)]
    assert page["unread_count"] == 1
    again = await client.patch(f"/v1/notifications/{old.id}", json={"read": True})
    assert again.json()["read_at"] == read_at
    unchanged = await client.patch(f"/v1/notifications/{old.id}", json={})
    assert unchanged.json()["read_at"] == read_at
    unread = await client.patch(f"/v1/notifications/{old.id}", json={"read": False})
    assert unread.json()["read_at"] is None


@pytest.mark.parametrize("body", [{"read": None}, {"read": "yes"}, {"read": 1}, {"seen": True}])
async def test_read_is_true_or_false(api, viewer, tell, body):
    entry = await tell(viewer)
    reply = await api.as_(viewer).patch(f"/v1/notifications/{entry.id}", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == f"/{next(iter(body))}"


async def test_what_is_not_in_my_inbox_is_not_mine_to_mark(api, viewer, make_user, tell):
    theirs = await tell(await make_user())
    hidden = await tell(viewer, is_in_inbox=False)
    for one in (theirs.id, hidden.id, uuid4()):
        reply = await api.as_(viewer).patch(f"/v1/notifications/{one}", json={"read": True})
        assert reply.status_code == 404
        assert reply.json()["type"].endswith("/notification-not-found")


async def test_all_is_read_at_once(api, viewer, make_user, tell):
    other = await make_user()
    for user in (viewer, viewer, other):
        await tell(user)
    reply = await api.as_(viewer).post("/v1/notifications/read-all")
    assert reply.status_code == 204
    for user, unread in ((viewer, 0), (other, 1)):
        page = (await api.as_(user).get("/v1/notifications")).json()
        assert page["unread_count"] == unread


async def test_an_inbox_is_a_persons_not_a_keys(api, admin, make_key):
    key = await make_key(admin, "items:read")
    for path in ("/v1/notifications", "/v1/notifications/preferences", "/v1/watches"):
        assert (await api.with_token(key).get(path)).status_code == 403
        assert (await api.get(path)).status_code == 401
