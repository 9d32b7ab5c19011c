"""Logging in and out."""

import asyncio

import argon2
import pytest
from sqlalchemy import select
from tests.conftest import PASSWORD, Api, is_shut_out

from pricebook.core import security
from pricebook.core.attempts import PasswordGate
from pricebook.core.database import Database
from pricebook.users.models import User

# Of PASSWORD, with half the memory and one pass.
OLD_PARAMETERS = {"memory_cost": 8_192, "time_cost": 1, "parallelism": 1}


async def log_in(api: Api, username: str, password: str = PASSWORD, **fields: str):
    form = {"username": username, "password": password, **fields}
    return await api.post("/v1/auth/token", data=form)


async def test_address_and_password_give_a_token_that_works(api, viewer, settings):
    reply = await log_in(api, viewer.email)
    assert reply.status_code == 200
    token = reply.json()
    assert token == {
        "access_token": token["access_token"],
        "token_type": "bearer",
        "expires_in": settings.auth.session_hours * 3_600,
    }
    assert reply.headers["Cache-Control"] == "no-store"
    me = await api.with_token(token["access_token"]).get("/v1/users/me")
    assert me.json()["id"] == str(viewer.id)


async def test_the_standard_password_grant_is_understood(api, viewer):
    reply = await log_in(
        api,
        viewer.email,
        grant_type="password",
        scope="",
        client_id="x",
        client_secret="y",
        more="z",
    )
    assert reply.status_code == 200


@pytest.mark.parametrize("change", [str.upper, str.title, lambda email: f"  {email} "])
async def test_an_address_is_known_however_it_is_written(api, viewer, change):
    assert (await log_in(api, change(viewer.email))).status_code == 200


async def test_every_log_in_opens_a_session_of_its_own(api, viewer):
    key = {"Idempotency-Key": "once"}
    form = {"username": viewer.email, "password": PASSWORD}
    replies = [await api.post("/v1/auth/token", data=form, headers=key) for _ in range(2)]
    tokens = {reply.json()["access_token"] for reply in replies}
    assert len(tokens) == 2


@pytest.mark.parametrize(
    "form",
    [
        {"password": PASSWORD},
        {"username": "ann@example.com"},
        {"username": "ann@example.com", "password": "x" * 4_097},
        {"username": "a" * 321, "password": PASSWORD},
        {"username": "a\x00@example.com", "password": PASSWORD},
        {"username": "ann@example.com", "password": PASSWORD, "grant_type": "implicit"},
    ],
)
async def test_a_form_that_breaks_a_rule_is_refused(api, form):
    reply = await api.post("/v1/auth/token", data=form)
    assert reply.status_code == 422
    assert PASSWORD not in reply.text


async def test_a_log_in_is_a_form(api, viewer):
    body = {"username": viewer.email, "password": PASSWORD}
    assert (await api.post("/v1/auth/token", json=body)).status_code == 415


def without_ids(reply) -> tuple:
    """What a stranger can see of an answer, but for what is new in each."""
    body = {name: value for name, value in reply.json().items() if name != "request_id"}
    new = {"x-request-id", "server-timing", "date", "ratelimit"}
    return reply.status_code, body, {k: v for k, v in reply.headers.items() if k not in new}


async def test_an_answer_does_not_say_whether_the_user_exists(api, viewer, make_user):
    gone = await make_user(disabled_at=viewer.created_at)
    wrong = without_ids(await log_in(api, viewer.email, "a wrong password"))
    assert wrong[0] == 401
    assert without_ids(await log_in(api, "nobody@example.com")) == wrong
    assert without_ids(await log_in(api, "no address at all")) == wrong
    assert without_ids(await log_in(api, gone.email)) == wrong
    assert without_ids(await log_in(api, gone.email, "a wrong password")) == wrong


async def test_every_refusal_costs_one_verification(api, viewer, make_user, monkeypatch):
    """The same work for known and unknown users; how long it takes is measured elsewhere."""
    verified: list[str] = []

    class Counting:
        def verify(self, password, hashed):
            return self.verify_and_update(password, hashed)[0]

        def verify_and_update(self, password, hashed):
            verified.append(hashed)
            return context.verify_and_update(password, hashed)

    context = security._CONTEXT
    monkeypatch.setattr(security, "_CONTEXT", Counting())
    gone = await make_user(disabled_at=viewer.created_at)
    for email in (viewer.email, gone.email, "nobody@example.com"):
        await log_in(api, email, "a wrong password")
    assert len(verified) == 3
    assert {hashed[:30] for hashed in verified} == {"$argon2id$v=19$m=19456,t=2,p=1"}


async def test_an_outdated_hash_is_replaced_at_log_in(api, make_user, database):
    old = argon2.PasswordHasher(**OLD_PARAMETERS).hash(PASSWORD)
    user = await make_user(hashed_password=old)
    assert (await log_in(api, user.email, "a wrong password")).status_code == 401
    assert await stored_hash(database, user) == old
    assert (await log_in(api, user.email)).status_code == 200
    new = await stored_hash(database, user)
    assert new.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (await log_in(api, user.email)).status_code == 200
    assert await stored_hash(database, user) == new
    assert not await is_shut_out(api.as_(user))


async def test_a_damaged_hash_lets_nobody_in(api, make_user):
    user = await make_user(hashed_password="$argon2id$damaged")
    assert (await log_in(api, user.email)).status_code == 401


async def stored_hash(database: Database, user: User) -> str | None:
    async with database.sessions() as fresh:
        return await fresh.scalar(select(User.hashed_password).where(User.id == user.id))


async def test_logging_out_ends_the_session_and_no_other(api, viewer):
    token = (await log_in(api, viewer.email)).json()["access_token"]
    leaving = api.with_token(token)
    assert (await leaving.get("/v1/users/me")).status_code == 200
    reply = await leaving.delete("/v1/auth/token")
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await leaving.get("/v1/users/me")).status_code == 401
    assert (await leaving.delete("/v1/auth/token")).status_code == 401
    assert (await api.as_(viewer).get("/v1/users/me")).status_code == 200


async def test_a_key_cannot_log_out(api, viewer, make_key):
    key = api.with_token(await make_key(viewer, "items:read"))
    assert (await key.delete("/v1/auth/token")).status_code == 403
    assert (await api.delete("/v1/auth/token")).status_code == 401


async def test_fifty_log_ins_at_once_keep_nobody_else_waiting(api, viewer):
    """They queue for the hashing thread, holding no connection and not the event loop."""
    done: list[str] = []

    async def note(name: str, request) -> int:
        reply = await request
        done.append(name)
        return reply.status_code

    log_ins = [asyncio.create_task(note("log-in", log_in(api, viewer.email))) for _ in range(50)]
    await asyncio.sleep(0)
    for _ in range(20):
        assert await note("read", api.as_(viewer).get("/v1/users/me")) == 200
    rename = api.as_(viewer).patch("/v1/users/me", json={"name": "Vera"})
    assert await note("write", rename) == 200
    assert done.count("log-in") < 50
    assert set(await asyncio.gather(*log_ins)) == {200}


async def test_a_log_in_that_raced_a_new_password_is_refused(api, viewer, database, monkeypatch):
    """Its password was right when it was checked, and is no more when it would let in."""
    check = PasswordGate.check

    async def check_slowly(*arguments):
        verdict = await check(*arguments)
        async with database.sessions.begin() as session:
            user = await session.get_one(User, viewer.id)
            user.end_sessions()
        return verdict

    monkeypatch.setattr(PasswordGate, "check", check_slowly)
    assert (await log_in(api, viewer.email)).status_code == 401
