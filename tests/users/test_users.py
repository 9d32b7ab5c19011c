"""What admins do with users, and what everybody may see."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.conftest import is_shut_out

from pricebook.users.models import User

NEW_USER = {
    "email": "ann@shop.example.com",
    "name": "Ann",
    "password": "a hammer and forty nails",
    "role": "editor",
}
ABSENT = UUID(int=7)


def slug(reply) -> str:
    return reply.json()["type"].rpartition("/")[2]


async def test_an_admin_makes_a_user_who_can_log_in(api, admin, recorded):
    reply = await api.as_(admin).post("/v1/users", json=NEW_USER)
    assert reply.status_code == 201
    user = reply.json()
    assert reply.headers["Location"] == f"/v1/users/{user['id']}"
    assert user == {
        "id": user["id"],
        "email": "ann@shop.example.com",
        "name": "Ann",
        "role": "editor",
        "email_verified_at": None,
        "disabled_at": None,
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
    }
    read = await api.as_(admin).get(reply.headers["Location"])
    assert read.json() == user
    form = {"username": "ann@shop.example.com", "password": NEW_USER["password"]}
    assert (await api.post("/v1/auth/token", data=form)).status_code == 200
    (event,) = await recorded()
    assert (event.type, str(event.subject_id)) == ("user.created", user["id"])
    assert event.payload == {"user_id": user["id"], "role": "editor"}
    assert event.actor_id == admin.id


async def test_a_user_is_a_viewer_unless_said_otherwise(api, admin):
    reply = await api.as_(admin).post("/v1/users", json={**NEW_USER, "role": "viewer"})
    plain = {name: value for name, value in NEW_USER.items() if name != "role"}
    plain["email"] = "bob@shop.example.com"
    assert (await api.as_(admin).post("/v1/users", json=plain)).json()["role"] == "viewer"
    assert reply.json()["role"] == "viewer"


async def test_an_address_belongs_to_one_user_however_it_is_written(api, admin, recorded):
    await api.as_(admin).post("/v1/users", json=NEW_USER)
    again = {**NEW_USER, "email": "ANN@Shop.Example.COM"}
    reply = await api.as_(admin).post("/v1/users", json=again)
    assert (reply.status_code, slug(reply)) == (409, "email-taken")
    assert len(await recorded()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "no address"),
        ("email", "a" * 250 + "@example.com"),
        ("email", None),
        ("name", ""),
        ("name", " "),
        ("name", "n" * 201),
        ("name", "nul\x00"),
        ("role", "owner"),
        ("password", "too short"),
        ("password", "x" * 4_097),
        ("password", "passwordpassword"),
        ("password", "ann@shop.example.com"),
        ("password", 123456789012345),
        ("hashed_password", "$argon2id$…"),
        ("id", str(ABSENT)),
        ("disabled_at", None),
    ],
)
async def test_a_user_that_breaks_a_rule_is_not_made(api, admin, recorded, field, value):
    reply = await api.as_(admin).post("/v1/users", json={**NEW_USER, field: value})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == f"/{field}"
    assert await recorded() == []


async def test_a_repeat_with_the_same_key_makes_one_user(api, admin, recorded):
    key = {"Idempotency-Key": "make-ann"}
    first = await api.as_(admin).post("/v1/users", json=NEW_USER, headers=key)
    again = await api.as_(admin).post("/v1/users", json=NEW_USER, headers=key)
    assert again.status_code == first.status_code == 201
    assert again.json() == first.json()
    assert len(await recorded()) == 1


async def test_people_read_themselves(api, viewer):
    me = await api.as_(viewer).get("/v1/users/me")
    assert me.status_code == 200
    assert me.json()["email"] == viewer.email
    assert (await api.as_(viewer).get(f"/v1/users/{viewer.id}")).json() == me.json()


async def test_only_admins_read_others(api, viewer, editor, admin):
    for reader in (viewer, editor):
        for user_id in (admin.id, ABSENT):
            reply = await api.as_(reader).get(f"/v1/users/{user_id}")
            assert (reply.status_code, slug(reply)) == (403, "role-insufficient")
    assert (await api.as_(admin).get(f"/v1/users/{viewer.id}")).status_code == 200
    reply = await api.as_(admin).get(f"/v1/users/{ABSENT}")
    assert (reply.status_code, slug(reply)) == (404, "user-not-found")


async def test_an_admins_key_reads_others_only_with_the_scope(api, viewer, admin, make_key):
    narrow = api.with_token(await make_key(admin, "items:read"))
    reply = await narrow.get(f"/v1/users/{viewer.id}")
    assert (reply.status_code, slug(reply)) == (403, "scope-insufficient")
    assert (await narrow.get(f"/v1/users/{admin.id}")).status_code == 200
    wide = api.with_token(await make_key(admin, "users:read"))
    assert (await wide.get(f"/v1/users/{viewer.id}")).status_code == 200


async def test_anyone_may_know_a_users_id_and_name_and_no_more(api, viewer):
    reply = await api.get(f"/v1/users/{viewer.id}/public")
    assert reply.json() == {"id": str(viewer.id), "name": viewer.name}
    reply = await api.get(f"/v1/users/{ABSENT}/public")
    assert (reply.status_code, slug(reply)) == (404, "user-not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("PATCH", "/{id}"),
        ("DELETE", "/{id}"),
    ],
)
@pytest.mark.parametrize("role", ["anonymous", "viewer", "editor"])
async def test_only_admins_manage_users(api, make_user, admin, recorded, method, path, role):
    client = api if role == "anonymous" else api.as_(await make_user(role))
    body = {"json": {**NEW_USER}} if method == "POST" else {}
    body = {"json": {"name": "New"}} if method == "PATCH" else body
    reply = await client.request(method, f"/v1/users{path}".format(id=admin.id), **body)
    assert reply.status_code == (401 if role == "anonymous" else 403)
    assert await recorded() == []


async def test_an_admin_changes_the_given_fields_alone(api, admin, viewer, recorded):
    reply = await api.as_(admin).patch(f"/v1/users/{viewer.id}", json={"name": "Vera"})
    assert reply.status_code == 200
    assert reply.json()["name"] == "Vera"
    assert reply.json()["email"] == viewer.email
    assert reply.json()["updated_at"] > reply.json()["created_at"]
    (event,) = await recorded()
    assert (event.type, event.payload["changed"]) == ("user.updated", ["name"])


async def test_a_change_to_what_is_already_so_is_no_event(api, admin, viewer, recorded):
    reply = await api.as_(admin).patch(
        f"/v1/users/{viewer.id}", json={"name": viewer.name, "disabled": False}
    )
    assert reply.status_code == 200
    assert await recorded() == []


@pytest.mark.parametrize(
    "patch",
    [
        {"name": None},
        {"email": None},
        {"role": None},
        {"disabled": None},
        {"disabled": "yes"},
        {"password": "a hammer and forty nails"},
        {"hashed_password": "x"},
        {"credentials_epoch": 0},
    ],
)
async def test_a_patch_that_breaks_a_rule_changes_nothing(api, admin, viewer, recorded, patch):
    reply = await api.as_(admin).patch(f"/v1/users/{viewer.id}", json={"name": "New", **patch})
    assert reply.status_code == 422
    now = (await api.as_(admin).get(f"/v1/users/{viewer.id}")).json()
    assert now["name"] == viewer.name or "name" in patch
    assert await recorded() == []


async def test_an_address_that_is_taken_cannot_be_taken_over(api, admin, viewer, editor):
    reply = await api.as_(admin).patch(f"/v1/users/{viewer.id}", json={"email": editor.email})
    assert (reply.status_code, slug(reply)) == (409, "email-taken")


async def test_nobody_changes_or_deletes_whom_there_is_not(api, admin):
    for patch in ({"name": "New"}, {"role": "viewer"}):
        reply = await api.as_(admin).patch(f"/v1/users/{ABSENT}", json=patch)
        assert (reply.status_code, slug(reply)) == (404, "user-not-found")
    assert (await api.as_(admin).delete(f"/v1/users/{ABSENT}")).status_code == 404


async def test_people_change_their_name_and_nothing_that_gives_them_power(api, viewer, recorded):
    me = api.as_(viewer)
    reply = await me.patch("/v1/users/me", json={"name": "Vera"})
    assert reply.status_code == 200
    assert reply.json()["name"] == "Vera"
    for field, value in (("role", "admin"), ("email", "new@example.com"), ("disabled", False)):
        assert (await me.patch("/v1/users/me", json={field: value})).status_code == 422
    (event,) = await recorded()
    assert event.payload == {"user_id": str(viewer.id), "changed": ["name"]}


async def test_a_key_cannot_change_its_owner(api, admin, make_key):
    key = api.with_token(await make_key(admin, "users:read", "users:write"))
    reply = await key.patch("/v1/users/me", json={"name": "New"})
    assert (reply.status_code, slug(reply)) == (403, "person-required")


async def test_a_deleted_user_is_gone_with_sessions_and_keys(
    api, admin, viewer, make_key, recorded
):
    key = await make_key(viewer, "items:read")
    assert (await api.as_(admin).delete(f"/v1/users/{viewer.id}")).status_code == 204
    assert (await api.as_(admin).get(f"/v1/users/{viewer.id}")).status_code == 404
    assert await is_shut_out(api.as_(viewer))
    assert await is_shut_out(api.with_token(key))
    assert [event.type for event in await recorded()][-1] == "user.deleted"


async def test_the_last_admin_stays_one(api, admin, make_user, recorded):
    await make_user("admin", disabled_at=admin.created_at)
    me = f"/v1/users/{admin.id}"
    for reply in (
        await api.as_(admin).patch(me, json={"role": "editor"}),
        await api.as_(admin).patch(me, json={"disabled": True}),
        await api.as_(admin).delete(me),
    ):
        assert (reply.status_code, slug(reply)) == (409, "last-admin")
    assert await recorded() == []


async def test_of_two_admins_who_demote_each_other_one_stays(api, make_user, session):
    one, other = await make_user("admin"), await make_user("admin")
    replies = await asyncio.gather(
        api.as_(one).patch(f"/v1/users/{other.id}", json={"role": "viewer"}),
        api.as_(other).patch(f"/v1/users/{one.id}", json={"role": "viewer"}),
        api.as_(one).patch(f"/v1/users/{one.id}", json={"disabled": True}),
        api.as_(other).delete(f"/v1/users/{other.id}"),
    )
    users = (await session.scalars(select(User).execution_options(populate_existing=True))).all()
    acting = {user.id for user in users if user.is_acting_admin}
    for caller, reply in zip((one, other, one, other), replies, strict=True):
        # Whoever has just been demoted is logged in no more; nobody else is refused so.
        refused = set() if caller.id in acting else {401}
        assert reply.status_code in {200, 204, 404, 409} | refused
    assert len(acting) == 1
