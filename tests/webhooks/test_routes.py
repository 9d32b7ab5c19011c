"""Webhooks over the API: what can be asked for, and what is refused."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update
from tests.webhooks.conftest import DEAD, DELIVERED, PENDING, price_changed

from pricebook.core.pagination import encode_cursor
from pricebook.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.service import MAX_WEBHOOKS

URL = "https://shop.example.com/prices?token=abc%2Fdef"
NOWHERE = f"/v1/webhooks/{uuid4()}"


@pytest.fixture
def client(api, admin):
    return api.as_(admin)


@pytest.fixture
def make_webhook(client):
    async def make(**fields):
        reply = await client.post("/v1/webhooks", json={"url": URL, **fields})
        assert reply.status_code == 201, reply.text
        return reply.json()

    return make


def problem_of(reply):
    return reply.status_code, reply.json()["type"].removeprefix("/problems/")


async def test_a_new_webhook_shows_its_secret_this_once(client, admin, recorded):
    wish = {"url": URL, "description": "Shop", "events": ["item.deleted"], "tags": ["b", "a", "b"]}
    reply = await client.post("/v1/webhooks", json=wish)
    assert reply.status_code == 201
    assert reply.headers["Cache-Control"] == "no-store"
    made = reply.json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert {name: made[name] for name in wish} == {**wish, "tags": ["a", "b"]}
    assert (made["status"], made["owner_id"]) == ("active", str(admin.id))
    read = await client.get(reply.headers["Location"])
    assert read.json() == made
    (event,) = await recorded()
    assert (event.type, event.payload) == ("webhook.created", {"webhook_id": made["id"]})
    for shown in (read, await client.get("/v1/webhooks"), await client.get("/v1/events")):
        assert secret not in shown.text
        assert "secret" not in shown.text.replace("old_secret_until", "")


async def test_without_filters_it_is_told_everything(make_webhook):
    made = await make_webhook()
    assert (made["events"], made["tags"], made["description"]) == (None, None, None)


@pytest.mark.parametrize(
    "url",
    [
        "shop.example.com",
        "//shop.example.com/",
        "ftp://shop.example.com/",
        "http://",
        "http:///x",
        "https://user@shop.example.com/",
        "https://user:secret@shop.example.com/",
        "https://@shop.example.com/",
        "https://shop.example.com/#top",
        "https://shop.example.com:0/",
        "https://shop.example.com:65536/",
        "https://shop.example.com:x/",
        "https://shop.example.com/a b",
        "https://shop.example.com\\@inside/",
        "https://shop.example.com/\x00",
        "https://shop.example.com/\r\nX: y",
        "https://[::1/",
        "https://[v1:x]/",
        f"https://{'a' * 64}.example.com/",
        "https://shop.example.com/" + 2_000 * "x",
        "",
        None,
        5,
    ],
)
async def test_a_url_that_cannot_be_sent_to_is_refused(client, url, recorded):
    reply = await client.post("/v1/webhooks", json={"url": url})
    assert reply.status_code == 422
    assert [one["pointer"] for one in reply.json()["errors"]] == ["/url"]
    assert await recorded() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("events", []),
        ("events", ["item.exploded"]),
        ("events", ["user.password_reset_requested"]),
        ("events", ["item.created", 5]),
        ("tags", []),
        ("tags", ["a;b"]),
        ("description", "x" * 1_001),
        ("description", "\x00"),
        ("secret", "whsec_mine"),
        ("owner_id", "019a9e5c-10b3-7d44-8a21-6b7c8d9e0f1a"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(client, field, value):
    reply = await client.post("/v1/webhooks", json={"url": URL, field: value})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"].startswith(f"/{field}")


async def test_without_a_key_no_secret_can_be_kept(make_api, admin):
    client = (await make_api(secret_key=None)).as_(admin)
    reply = await client.post("/v1/webhooks", json={"url": URL})
    assert problem_of(reply) == (503, "secret-key-missing")


async def test_there_are_so_many_webhooks_and_no_more(client, session):
    session.add_all(WebhookEndpoint(url=URL, sealed_secret=b"") for _ in range(MAX_WEBHOOKS))
    await session.commit()
    reply = await client.post("/v1/webhooks", json={"url": URL})
    assert problem_of(reply) == (409, "too-many-webhooks")


async def test_webhooks_are_listed_newest_first_in_pages(client, make_webhook):
    ids = [(await make_webhook())["id"] for _ in range(3)]
    reply = await client.get("/v1/webhooks", params={"limit": 2})
    assert [one["id"] for one in reply.json()["items"]] == [ids[2], ids[1]]
    assert 'rel="next"' in reply.headers["Link"]
    cursor = reply.json()["next_cursor"]
    reply = await client.get("/v1/webhooks", params={"cursor": cursor})
    assert [one["id"] for one in reply.json()["items"]] == [ids[0]]
    for bad in ("x", encode_cursor("-id", ["x"]), encode_cursor("name", [ids[0]])):
        reply = await client.get("/v1/webhooks", params={"cursor": bad})
        assert problem_of(reply) == (422, "cursor-invalid")


async def test_a_patch_changes_what_it_names(client, make_webhook, recorded):
    made = await make_webhook(description="Shop", events=["item.created"], tags=["a"])
    path = f"/v1/webhooks/{made['id']}"
    reply = await client.patch(path, json={"events": None, "description": "Till"})
    assert reply.status_code == 200
    changed = reply.json()
    assert (changed["events"], changed["tags"], changed["description"]) == (None, ["a"], "Till")
    assert (await client.patch(path, json={"description": "Till"})).status_code == 200
    events = [one for one in await recorded() if one.type == "webhook.updated"]
    assert [sorted(one.payload["changed"]) for one in events] == [["description", "events"]]
    assert "secret" not in changed
    for body in ({"url": None}, {"url": "http://127.0.0.1/"}, {"paused": None}, {"paused": 1}):
        reply = await client.patch(path, json=body)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["pointer"] == f"/{next(iter(body))}"


async def test_a_webhook_is_paused_and_resumed(client, make_webhook):
    path = f"/v1/webhooks/{(await make_webhook())['id']}"
    assert (await client.patch(path, json={"paused": True})).json()["status"] == "paused"
    assert (await client.get(path)).json()["status"] == "paused"
    assert (await client.patch(path, json={"paused": False})).json()["status"] == "active"


async def test_resuming_takes_up_again_what_was_disabled(client, make_webhook, session):
    path = f"/v1/webhooks/{(await make_webhook())['id']}"
    long_ago = func.now() - timedelta(days=9)
    await session.execute(
        update(WebhookEndpoint).values(
            disabled_at=func.now(), disabled_reason="failing", failing_since=long_ago
        )
    )
    await session.commit()
    before = (await client.get(path)).json()
    assert (before["status"], before["disabled_reason"]) == ("disabled", "failing")
    after = (await client.patch(path, json={"paused": False})).json()
    # Its failures are counted anew, or the next one would disable it again.
    assert (after["status"], after["disabled_reason"], after["failing_since"]) == (
        "active",
        None,
        None,
    )


async def test_rotating_shows_the_new_secret_this_once(client, make_webhook, recorded):
    made = await make_webhook()
    reply = await client.post(f"/v1/webhooks/{made['id']}/rotate-secret")
    assert reply.status_code == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.json()["secret"] not in (made["secret"], "")
    assert reply.json()["old_secret_until"] is not None
    assert (await recorded())[-1].type == "webhook.secret_rotated"


async def test_a_deleted_webhook_takes_its_deliveries_along(
    client, make_webhook, session, recorded
):
    made = await make_webhook()
    await client.post(f"/v1/webhooks/{made['id']}/test")
    assert (await client.delete(f"/v1/webhooks/{made['id']}")).status_code == 204
    assert await session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0
    assert (await recorded())[-1].payload == {"webhook_id": made["id"]}
    assert (await client.delete(f"/v1/webhooks/{made['id']}")).status_code == 404


async def test_what_is_not_there_is_not_found(client, make_webhook):
    made = f"/v1/webhooks/{(await make_webhook())['id']}"
    for method, path, body in (
        ("GET", NOWHERE, None),
        ("PATCH", NOWHERE, {"paused": True}),
        ("DELETE", NOWHERE, None),
        ("POST", f"{NOWHERE}/test", None),
        ("POST", f"{NOWHERE}/rotate-secret", None),
        ("POST", f"{NOWHERE}/replay", {"since": "2020-01-01T00:00:00Z"}),
        ("GET", f"{NOWHERE}/deliveries", None),
    ):
        reply = await client.request(method, path, json=body)
        assert problem_of(reply) == (404, "webhook-not-found")
    for method, path in (
        ("GET", f"{made}/deliveries/{uuid4()}"),
        ("POST", f"{made}/deliveries/{uuid4()}/redeliver"),
    ):
        reply = await client.request(method, path)
        assert problem_of(reply) == (404, "webhook-delivery-not-found")


async def test_deliveries_are_listed_with_how_they_went(
    client, make_endpoint, happen, expand, session, deliveries
):
    endpoint, other = await make_endpoint(), await make_endpoint()
    await happen(*(price_changed() for _ in range(3)))
    await expand()
    first, second, third = await deliveries(endpoint)
    await session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == first.id)
        .values(status=DEAD, attempts=2, settled_at=func.now())
    )
    for error in ("timed out", "answered 500"):
        await session.execute(
            text(
                "INSERT INTO webhook_attempts (delivery_id, started_at, duration_ms, status_code, "
                "error, response_head) VALUES (:id, now(), 7, 500, :error, 'oops')"
            ),
            {"id": first.id, "error": error},
        )
    await session.commit()
    path = f"/v1/webhooks/{endpoint.id}/deliveries"
    listed = (await client.get(path)).json()["items"]
    assert [one["id"] for one in listed] == [str(third.id), str(second.id), str(first.id)]
    dead = listed[2]
    assert dead["message_id"] == str(first.message_id)
    assert (dead["type"], dead["status"]) == ("item.price_changed", "dead")
    assert (dead["attempt_count"], dead["next_attempt_at"]) == (2, None)
    assert (dead["last_status_code"], dead["last_error"]) == (500, "answered 500")
    assert listed[0]["next_attempt_at"] is not None
    assert listed[0]["last_error"] is None

    chosen = (await client.get(path, params={"status": "dead"})).json()
    assert chosen == {"items": [dead], "next_cursor": None}
    assert (await client.get(path, params={"status": "lost"})).status_code == 422
    page = (await client.get(path, params={"limit": 2})).json()
    rest = (await client.get(path, params={"cursor": page["next_cursor"]})).json()
    assert page["items"] + rest["items"] == listed

    detail = (await client.get(f"{path}/{first.id}")).json()
    assert detail.items() >= dead.items()
    assert detail["body"].startswith('{"type":"item.price_changed","timestamp":"')
    assert [one["error"] for one in detail["attempts"]] == ["answered 500", "timed out"]
    assert detail["attempts"][0]["response_head"] == "oops"
    elsewhere = f"/v1/webhooks/{other.id}/deliveries/{first.id}"
    assert (await client.get(elsewhere)).status_code == 404
    assert (await client.post(f"{elsewhere}/redeliver")).status_code == 404


async def test_owners_may_go_and_their_webhooks_stay(client, make_webhook, api, make_user, session):
    other = await make_user("admin")
    reply = await api.as_(other).post("/v1/webhooks", json={"url": URL})
    assert (await client.delete(f"/v1/users/{other.id}")).status_code == 204
    shown = await client.get(f"/v1/webhooks/{reply.json()['id']}")
    assert shown.json()["owner_id"] is None


async def test_no_attempt_shows_what_it_should_not(session):
    """What is kept of an attempt has no place for a URL, a header or a secret."""
    assert set(WebhookAttempt.__table__.columns.keys()) == {
        "id",
        "delivery_id",
        "started_at",
        "duration_ms",
        "status_code",
        "error",
        "response_head",
    }
    assert {PENDING, DELIVERED, DEAD} == {"pending", "delivered", "dead"}
