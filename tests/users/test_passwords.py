"""Changing one's password, and what becomes of sessions and keys."""

import asyncio

import pytest
from tests.conftest import PASSWORD, is_shut_out

NEW_PASSWORD = "a hammer and forty nails"
CHANGE = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}


async def log_in(api, user, password=PASSWORD):
    form = {"username": user.email, "password": password}
    return await api.post("/v1/auth/token", data=form)


async def test_the_new_password_logs_in_and_the_old_one_does_not(api, viewer, recorded):
    reply = await api.as_(viewer).put("/v1/users/me/password", json=CHANGE)
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await log_in(api, viewer, NEW_PASSWORD)).status_code == 200
    assert (await log_in(api, viewer, PASSWORD)).status_code == 401
    (event,) = await recorded()
    assert event.type == "user.password_changed"
    assert event.payload == {"user_id": str(viewer.id)}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"current_password": "not the current one"}, "/current_password"),
        ({"current_password": "x" * 4_097}, "/current_password"),
        ({"new_password": "too short"}, "/new_password"),
        ({"new_password": "passwordpassword"}, "/new_password"),
        ({"new_password": PASSWORD}, "/new_password"),
    ],
)
async def test_a_change_that_breaks_a_rule_is_refused(api, viewer, recorded, change, pointer):
    reply = await api.as_(viewer).put("/v1/users/me/password", json={**CHANGE, **change})
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    assert (await log_in(api, viewer)).status_code == 200
    assert await recorded() == []


async def test_the_own_address_is_no_password(api, make_user):
    user = await make_user(email="someone.with.a.long.name@example.com")
    change = {**CHANGE, "new_password": user.email}
    reply = await api.as_(user).put("/v1/users/me/password", json=change)
    assert reply.json()["errors"][0]["pointer"] == "/new_password"


async def test_the_current_password_cannot_be_guessed_at_leisure(api, viewer, settings):
    wrong = {**CHANGE, "current_password": "not the current one"}
    for _ in range(settings.auth.failures_per_account_and_network):
        reply = await api.as_(viewer).put("/v1/users/me/password", json=wrong)
        assert reply.status_code == 422
    reply = await api.as_(viewer).put("/v1/users/me/password", json=CHANGE)
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) > 0


async def test_a_key_cannot_change_the_password(api, viewer, make_key):
    key = api.with_token(await make_key(viewer, "users:write"))
    assert (await key.put("/v1/users/me/password", json=CHANGE)).status_code == 403
    assert (await api.put("/v1/users/me/password", json=CHANGE)).status_code == 401


async def test_of_two_changes_at_once_one_wins(api, viewer):
    changes = [{**CHANGE, "new_password": f"{number} hammers, 40 nails"} for number in range(4)]
    replies = await asyncio.gather(
        *(api.as_(viewer).put("/v1/users/me/password", json=change) for change in changes)
    )
    assert sorted(reply.status_code for reply in replies) == [204, 422, 422, 422]


async def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(api, viewer, make_key):
    key = api.with_token(await make_key(viewer, "items:read"))
    elsewhere = api.with_token((await log_in(api, viewer)).json()["access_token"])
    here = api.as_(viewer)
    assert (await elsewhere.get("/v1/users/me")).status_code == 200
    assert (await here.put("/v1/users/me/password", json=CHANGE)).status_code == 204
    assert await is_shut_out(elsewhere)
    assert (await here.get("/v1/users/me")).status_code == 200
    assert (await key.get("/v1/users/me")).status_code == 200


async def test_a_kept_session_ends_with_the_next_change_made_elsewhere(api, viewer):
    first = api.as_(viewer)
    await first.put("/v1/users/me/password", json=CHANGE)
    token = (await log_in(api, viewer, NEW_PASSWORD)).json()["access_token"]
    second = api.with_token(token)
    change = {"current_password": NEW_PASSWORD, "new_password": "forty nails and a hammer"}
    assert (await second.put("/v1/users/me/password", json=change)).status_code == 204
    assert await is_shut_out(first)
    assert (await second.get("/v1/users/me")).status_code == 200


@pytest.mark.parametrize("patch", [{"disabled": True}, {"role": "editor"}])
async def test_disabling_and_a_new_role_end_every_session(api, admin, viewer, recorded, patch):
    assert (await api.as_(viewer).get("/v1/users/me")).status_code == 200
    reply = await api.as_(admin).patch(f"/v1/users/{viewer.id}", json=patch)
    assert reply.status_code == 200
    assert await is_shut_out(api.as_(viewer))
    types = [event.type for event in await recorded()]
    assert types == ["user.updated", *(["user.disabled"] if "disabled" in patch else [])]


async def test_a_disabled_users_keys_sleep_and_sessions_stay_over(api, admin, viewer, make_key):
    key = api.with_token(await make_key(viewer, "items:read"))
    path = f"/v1/users/{viewer.id}"
    assert (await api.as_(admin).patch(path, json={"disabled": True})).json()["disabled_at"]
    assert await is_shut_out(key)
    assert (await log_in(api, viewer)).status_code == 401
    enabled = await api.as_(admin).patch(path, json={"disabled": False})
    assert enabled.json()["disabled_at"] is None
    assert (await key.get("/v1/users/me")).status_code == 200
    assert await is_shut_out(api.as_(viewer))
    assert (await log_in(api, viewer)).status_code == 200
