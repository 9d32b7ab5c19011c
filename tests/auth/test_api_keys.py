"""API keys: made by people, used by systems, shown once."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from tests.conftest import is_shut_out

from pricebook.auth.models import ApiKey
from pricebook.auth.service import MAX_API_KEYS, make_authenticator
from pricebook.core.security import token_digest

NEXT_YEAR = datetime.now(UTC) + timedelta(days=365)

ABSENT = UUID(int=7)


async def test_a_key_is_shown_once(api, viewer, recorded):
    mine = api.as_(viewer)
    reply = await mine.post("/v1/api-keys", json={"name": "Till 3", "scopes": ["items:read"]})
    assert reply.status_code == 201
    assert reply.headers["Cache-Control"] == "no-store"
    made = reply.json()
    key = made.pop("key")
    assert key.startswith("pbk_")
    assert made == {
        "id": made["id"],
        "name": "Till 3",
        "scopes": ["items:read"],
        "created_at": made["created_at"],
        "last_used_at": None,
        "expires_at": None,
    }
    assert reply.headers["Location"] == f"/v1/api-keys/{made['id']}"
    assert (await mine.get(reply.headers["Location"])).json() == made
    assert (await mine.get("/v1/api-keys")).json()["items"] == [made]
    (event,) = await recorded()
    assert event.type == "api_key.created"
    assert event.payload == {
        "api_key_id": made["id"],
        "user_id": str(viewer.id),
        "scopes": ["items:read"],
    }


async def test_a_repeat_shows_the_same_key_to_the_same_caller(api, viewer, recorded):
    new, header = {"name": "Till 3"}, {"Idempotency-Key": "till-3"}
    first = await api.as_(viewer).post("/v1/api-keys", json=new, headers=header)
    again = await api.as_(viewer).post("/v1/api-keys", json=new, headers=header)
    assert again.json() == first.json()
    assert len(await recorded()) == 1


async def test_a_key_reads_unless_more_is_asked_for(api, viewer):
    reply = await api.as_(viewer).post("/v1/api-keys", json={"name": "Till"})
    assert reply.json()["scopes"] == ["items:read", "users:read", "webhooks:read"]


async def test_a_key_can_do_what_its_scopes_allow(api, editor, make_key):
    reader = api.with_token(await make_key(editor, "items:read"))
    writer = api.with_token(await make_key(editor, "items:read", "items:write"))
    item = {"sku": "HAMMER-1", "name": "Hammer", "price": "12.50", "currency": "EUR"}
    assert (await reader.get("/v1/items")).status_code == 200
    refused = await reader.post("/v1/items", json=item)
    assert refused.status_code == 403
    assert refused.json()["type"].endswith("/scope-insufficient")
    assert (await writer.post("/v1/items", json=item)).status_code == 201


async def test_a_key_can_do_no_more_than_its_owners_role(api, viewer, make_key):
    key = api.with_token(await make_key(viewer, "items:write", "users:read"))
    refused = await key.delete(f"/v1/items/{ABSENT}")
    assert refused.json()["type"].endswith("/role-insufficient")
    assert (await key.get("/v1/users")).status_code == 403


async def test_a_key_follows_its_owners_new_role(api, admin, editor, make_key, session):
    key = await make_key(editor, "items:write")
    path = f"/v1/users/{editor.id}"
    assert (await api.as_(admin).patch(path, json={"role": "viewer"})).status_code == 200
    authenticate = make_authenticator(api.app.state.database, api.app.state.settings)
    caller = await authenticate(key)
    assert caller.role == "viewer"
    await authenticate.close()


async def test_a_revoked_key_lets_nobody_in(api, viewer, make_key, recorded):
    key = api.with_token(await make_key(viewer, "items:read"))
    assert (await key.get("/v1/users/me")).status_code == 200
    (made,) = (await api.as_(viewer).get("/v1/api-keys")).json()["items"]
    path = f"/v1/api-keys/{made['id']}"
    assert (await api.as_(viewer).delete(path)).status_code == 204
    assert (await key.get("/v1/users/me")).status_code == 401
    assert (await api.as_(viewer).delete(path)).status_code == 404
    assert (await api.as_(viewer).get(path)).status_code == 404
    assert [event.type for event in await recorded()] == ["api_key.created", "api_key.revoked"]


async def test_keys_belong_to_who_made_them(api, viewer, admin, make_key):
    await make_key(viewer, "items:read")
    (theirs,) = (await api.as_(viewer).get("/v1/api-keys")).json()["items"]
    assert (await api.as_(admin).get("/v1/api-keys")).json()["items"] == []
    for method in ("GET", "DELETE"):
        reply = await api.as_(admin).request(method, f"/v1/api-keys/{theirs['id']}")
        assert reply.json()["type"].endswith("/api-key-not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", f"/{ABSENT}"),
        ("DELETE", f"/{ABSENT}"),
    ],
)
async def test_only_people_deal_with_keys(api, admin, make_key, method, path):
    key = api.with_token(await make_key(admin, "users:write"))
    body = {"json": {"name": "Another"}} if method == "POST" else {}
    assert (await key.request(method, f"/v1/api-keys{path}", **body)).status_code == 403
    assert (await api.request(method, f"/v1/api-keys{path}", **body)).status_code == 401


async def test_a_key_may_end_at_a_moment_or_after_some_days(api, viewer):
    mine = api.as_(viewer)
    at = await mine.post("/v1/api-keys", json={"name": "A", "expires_at": str(NEXT_YEAR)})
    assert datetime.fromisoformat(at.json()["expires_at"]) == NEXT_YEAR
    after = (await mine.post("/v1/api-keys", json={"name": "B", "expires_in_days": 7})).json()
    lifetime = datetime.fromisoformat(after["expires_at"]) - datetime.fromisoformat(
        after["created_at"]
    )
    assert timedelta(days=6, hours=23) < lifetime < timedelta(days=7, hours=1)


async def test_a_key_past_its_time_lets_nobody_in(api, viewer, make_key, session):
    key = api.with_token(await make_key(viewer, "items:read"))
    await session.execute(update(ApiKey).values(expires_at=func.now()))
    await session.commit()
    assert await is_shut_out(key)
    assert (await api.as_(viewer).get("/v1/api-keys")).json()["items"] == []


@pytest.mark.parametrize(
    ("new", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["items:delete"]}, "/scopes/0"),
        ({"scopes": None}, "/scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"expires_in_days": 0}, "/expires_in_days"),
        ({"expires_in_days": 3_651}, "/expires_in_days"),
        ({"expires_in_days": 7, "expires_at": "2099-01-01T00:00:00Z"}, ""),
        ({"key": "pbk_chosen"}, "/key"),
        ({"user_id": str(ABSENT)}, "/user_id"),
    ],
)
async def test_a_key_that_breaks_a_rule_is_not_made(api, viewer, recorded, new, pointer):
    reply = await api.as_(viewer).post("/v1/api-keys", json={"name": "Till", **new})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == pointer
    assert await recorded() == []


async def test_a_person_has_so_many_keys(api, viewer, session):
    session.add_all(
        ApiKey(
            user_id=viewer.id,
            token_digest=token_digest(str(number)),
            name="Till",
            scopes=["items:read"],
        )
        for number in range(MAX_API_KEYS)
    )
    await session.commit()
    reply = await api.as_(viewer).post("/v1/api-keys", json={"name": "One more"})
    assert reply.status_code == 409
    assert reply.json()["type"].endswith("/too-many-api-keys")


async def test_the_first_use_of_a_key_is_stamped(api, viewer, make_key, session):
    key = await make_key(viewer, "items:read")
    authenticate = make_authenticator(api.app.state.database, api.app.state.settings)
    caller = await authenticate(key)
    assert {str(scope) for scope in caller.scopes} == {"items:read"}
    await authenticate.close()
    assert await session.scalar(select(ApiKey.last_used_at)) is not None
