"""A forgotten password, and an e-mail address to be proven."""

import asyncio

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update
from tests.conftest import PASSWORD, Api, is_shut_out

from pricebook.auth.models import OneTimeToken
from pricebook.auth.one_time import issue_token
from pricebook.core.attempts import FailedAttempts
from pricebook.core.clock import now
from pricebook.users.models import User

NEW_PASSWORD = "a hammer and forty nails"
RESET = "/v1/auth/password-reset"
CONFIRM = "/v1/auth/password-reset/confirm"
VERIFY = "/v1/auth/verify-email"
RESEND = "/v1/auth/verify-email/resend"


@pytest.fixture
def token_of(database):
    """Make the token that a mail to a user carries."""

    async def make(user: User, purpose: str) -> str:
        async with database.sessions.begin() as session:
            token = await issue_token(session, user_id=user.id, email=user.email, purpose=purpose)
        return token.get_secret_value()

    return make


@pytest.fixture
def stored(database):
    """Read a user as the database has it."""

    async def read(user: User) -> User:
        async with database.sessions() as fresh:
            return await fresh.get_one(User, user.id)

    return read


@pytest.fixture
def types_recorded(recorded):
    async def read() -> list[str]:
        return [event.type for event in await recorded()]

    return read


async def log_in(api: Api, user: User, password: str):
    form = {"username": user.email, "password": password}
    return await api.post("/v1/auth/token", data=form)


def seen_by_a_stranger(reply) -> tuple:
    new = {"x-request-id", "server-timing", "date", "ratelimit"}
    headers = {name: value for name, value in reply.headers.items() if name not in new}
    return reply.status_code, reply.content, headers


async def test_asking_for_a_new_password_records_the_wish_and_nothing_else(api, viewer, recorded):
    reply = await api.post(RESET, json={"email": viewer.email.upper()})
    assert (reply.status_code, reply.content) == (202, b"")
    (event,) = await recorded()
    assert event.type == "user.password_reset_requested"
    assert event.payload == {"user_id": str(viewer.id)}
    assert (await log_in(api, viewer, PASSWORD)).status_code == 200


async def test_the_answer_does_not_say_whether_the_user_exists(
    api, viewer, make_user, types_recorded
):
    gone = await make_user(disabled_at=viewer.created_at)
    answers = [
        seen_by_a_stranger(await api.post(RESET, json={"email": email}))
        for email in (viewer.email, "nobody@example.com", gone.email)
    ]
    assert answers[1:] == answers[:1] * 2
    assert await types_recorded() == ["user.password_reset_requested"]


async def test_an_address_gets_so_many_mails_and_nobody_learns_it(
    api, viewer, settings, types_recorded
):
    limit = settings.auth.mails_per_address
    known = [await api.post(RESET, json={"email": viewer.email}) for _ in range(limit + 2)]
    unknown = [
        await api.post(RESET, json={"email": "nobody@example.com"}) for _ in range(limit + 2)
    ]
    assert len({str(seen_by_a_stranger(reply)) for reply in (*known, *unknown)}) == 1
    assert await types_recorded() == ["user.password_reset_requested"] * limit


async def test_a_network_asks_so_often_whatever_the_addresses(app, settings, database):
    limit = settings.auth.mail_requests_per_network

    async def ask(number: int, network: str = "192.0.2.1", **headers: str):
        transport = httpx2.ASGITransport(app=app, client=(network, 50_000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x.test") as one:
            return await one.post(RESET, json={"email": f"{number}@example.com"}, headers=headers)

    replies = await asyncio.gather(*(ask(number) for number in range(limit + 10)))
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(202), statuses.count(429)) == (limit, 10)
    refused = await ask(0, **{"X-Forwarded-For": "198.51.100.7"})
    assert refused.status_code == 429
    assert refused.json()["type"] == "/problems/too-many-mail-requests"
    assert 0 < int(refused.headers["Retry-After"]) <= settings.auth.failure_window_seconds
    assert (await ask(0, "192.0.2.2")).status_code == 202
    # The window ends as it was begun, however often was asked in it.
    async with database.sessions.begin() as session:
        await session.execute(update(FailedAttempts).values(expires_at=func.now()))
    assert (await ask(0)).status_code == 202


@pytest.mark.parametrize("body", [{}, {"email": ""}, {"email": "nobody"}, {"email": None}])
async def test_whose_password_is_forgotten_must_be_an_address(api, body):
    reply = await api.post(RESET, json=body)
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/email"]


async def test_a_repeat_with_its_key_sends_no_second_mail(api, viewer, types_recorded):
    for _ in range(2):
        reply = await api.as_(viewer).post(
            RESET, json={"email": viewer.email}, headers={"Idempotency-Key": "once"}
        )
        assert (reply.status_code, reply.content) == (202, b"")
    assert await types_recorded() == ["user.password_reset_requested"]


async def test_the_token_of_the_mail_sets_a_new_password(
    api, viewer, token_of, stored, types_recorded
):
    token = await token_of(viewer, "password_reset")
    reply = await api.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD})
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await log_in(api, viewer, NEW_PASSWORD)).status_code == 200
    assert (await log_in(api, viewer, PASSWORD)).status_code == 401
    # Whoever got the mail reads the address.
    assert (await stored(viewer)).email_verified_at is not None
    assert await types_recorded() == ["user.password_changed", "user.email_verified"]


async def test_an_address_proven_before_stays_so(api, make_user, token_of, stored, types_recorded):
    user = await make_user(email_verified_at=now())
    token = await token_of(user, "password_reset")
    await api.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD})
    assert (await stored(user)).email_verified_at == user.email_verified_at
    assert await types_recorded() == ["user.password_changed"]


async def test_a_new_password_ends_every_session_and_leaves_the_keys(
    api, viewer, token_of, make_key
):
    key = api.with_token(await make_key(viewer, "items:read"))
    token = await token_of(viewer, "password_reset")
    here = api.as_(viewer)
    assert (await here.get("/v1/users/me")).status_code == 200
    reply = await here.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD})
    assert reply.status_code == 204
    assert await is_shut_out(here)
    assert (await key.get("/v1/users/me")).status_code == 200


async def test_a_reset_token_works_once(api, viewer, token_of):
    tokens = [await token_of(viewer, "password_reset") for _ in range(2)]
    body = {"token": tokens[0], "new_password": NEW_PASSWORD}
    assert (await api.post(CONFIRM, json=body)).status_code == 204
    for token in tokens:
        again = {"token": token, "new_password": "forty nails and a hammer"}
        assert_no_good(await api.post(CONFIRM, json=again))
    assert (await log_in(api, viewer, NEW_PASSWORD)).status_code == 200


def assert_no_good(reply) -> None:
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/one-time-token-invalid"
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/token"]


async def test_of_fifty_racing_resets_one_wins(api, viewer, token_of, recorded):
    token = await token_of(viewer, "password_reset")
    passwords = [f"{number} hammers and forty nails" for number in range(50)]
    replies = await asyncio.gather(
        *(api.post(CONFIRM, json={"token": token, "new_password": one}) for one in passwords)
    )
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(204), statuses.count(422)) == (1, 49)
    winner = passwords[statuses.index(204)]
    assert (await log_in(api, viewer, winner)).status_code == 200
    assert len([one for one in await recorded() if one.type == "user.password_changed"]) == 1


async def test_a_reset_token_works_for_an_hour(api, viewer, token_of, session):
    token = await token_of(viewer, "password_reset")
    left = select(func.extract("epoch", OneTimeToken.expires_at - OneTimeToken.created_at))
    assert await session.scalar(left) == 3_600
    await session.execute(update(OneTimeToken).values(expires_at=func.now()))
    await session.commit()
    assert_no_good(await api.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD}))
    assert (await log_in(api, viewer, PASSWORD)).status_code == 200


async def test_a_password_changed_meanwhile_voids_the_token(api, viewer, token_of):
    token = await token_of(viewer, "password_reset")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await api.as_(viewer).put("/v1/users/me/password", json=change)
    body = {"token": token, "new_password": "forty nails and a hammer"}
    assert_no_good(await api.post(CONFIRM, json=body))


@pytest.mark.parametrize(
    "patch", [{"email": "moved@example.com"}, {"disabled": True}, {"role": "editor"}]
)
async def test_a_user_changed_meanwhile_voids_the_token(api, admin, viewer, token_of, patch):
    token = await token_of(viewer, "password_reset")
    reply = await api.as_(admin).patch(f"/v1/users/{viewer.id}", json=patch)
    assert reply.status_code == 200
    assert_no_good(await api.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD}))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"new_password": "too short"}, "/new_password"),
        ({"new_password": "passwordpassword"}, "/new_password"),
        ({"new_password": "someone.with.a.long.name@example.com"}, "/new_password"),
        ({"new_password": "x" * 4_097}, "/new_password"),
        ({"token": "x" * 201}, "/token"),
        ({"token": "pbr_é"}, "/token"),
        ({"token": 7}, "/token"),
    ],
)
async def test_a_reset_that_breaks_a_rule_is_refused_and_uses_nothing_up(
    api, make_user, token_of, recorded, change, pointer
):
    user = await make_user(email="someone.with.a.long.name@example.com")
    body = {"token": await token_of(user, "password_reset"), "new_password": NEW_PASSWORD}
    reply = await api.post(CONFIRM, json={**body, **change})
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    assert "pbr_" not in reply.text
    assert await recorded() == []
    assert (await api.post(CONFIRM, json=body)).status_code == 204


@pytest.mark.parametrize("path", [CONFIRM, VERIFY])
async def test_other_tokens_open_nothing(api, viewer, token_of, path, recorded):
    other = "verify_email" if path == CONFIRM else "password_reset"
    password = {"new_password": NEW_PASSWORD} if path == CONFIRM else {}
    for token in ("", "x", "pbr_" + "A" * 43, api.tokens[viewer.id], await token_of(viewer, other)):
        assert_no_good(await api.post(path, json={"token": token, **password}))
    assert await recorded() == []


async def test_a_new_password_lets_someone_who_was_locked_out_in(api, viewer, token_of, settings):
    for _ in range(settings.auth.failures_per_account_and_network):
        assert (await log_in(api, viewer, "a wrong password")).status_code == 401
    assert (await log_in(api, viewer, PASSWORD)).status_code == 429
    token = await token_of(viewer, "password_reset")
    await api.post(CONFIRM, json={"token": token, "new_password": NEW_PASSWORD})
    assert (await log_in(api, viewer, NEW_PASSWORD)).status_code == 200


async def test_the_token_of_the_mail_proves_the_address(api, viewer, token_of, recorded):
    me = api.as_(viewer)
    assert (await me.get("/v1/users/me")).json()["email_verified_at"] is None
    token = await token_of(viewer, "verify_email")
    reply = await api.post(VERIFY, json={"token": token})
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await me.get("/v1/users/me")).json()["email_verified_at"] is not None
    (event,) = await recorded()
    assert (event.type, event.payload) == ("user.email_verified", {"user_id": str(viewer.id)})
    assert_no_good(await api.post(VERIFY, json={"token": token}))


async def test_of_fifty_racing_proofs_one_wins(api, viewer, token_of, types_recorded):
    body = {"token": await token_of(viewer, "verify_email")}
    replies = await asyncio.gather(*(api.post(VERIFY, json=body) for _ in range(50)))
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(204), statuses.count(422)) == (1, 49)
    assert await types_recorded() == ["user.email_verified"]


async def test_another_mail_to_prove_the_address_is_sent_until_it_is_proven(
    api, viewer, token_of, recorded
):
    me = api.as_(viewer)
    reply = await me.post(RESEND)
    assert (reply.status_code, reply.content) == (202, b"")
    (event,) = await recorded()
    assert event.type == "user.email_verification_requested"
    assert event.payload == {"user_id": str(viewer.id)}
    await api.post(VERIFY, json={"token": await token_of(viewer, "verify_email")})
    assert (await me.post(RESEND)).status_code == 202
    assert len(await recorded()) == 2


async def test_nobody_has_their_inbox_flooded(api, viewer, editor, settings, recorded):
    limit = settings.auth.mails_per_address
    for _ in range(limit):
        assert (await api.as_(viewer).post(RESEND)).status_code == 202
    refused = await api.as_(viewer).post(RESEND)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert len(await recorded()) == limit
    assert (await api.as_(editor).post(RESEND)).status_code == 202


async def test_a_new_address_is_to_be_proven_again(api, admin, make_user, types_recorded, token_of):
    user = await make_user(email_verified_at=now())
    old = await token_of(user, "verify_email")
    path = f"/v1/users/{user.id}"
    reply = await api.as_(admin).patch(path, json={"email": "moved@example.com"})
    assert reply.json()["email_verified_at"] is None
    assert await types_recorded() == ["user.updated", "user.email_verification_requested"]
    assert_no_good(await api.post(VERIFY, json={"token": old}))


async def test_a_reset_takes_no_key_of_a_till(api, viewer, make_key):
    key = api.with_token(await make_key(viewer, "users:write"))
    assert (await key.post(RESEND)).status_code == 403


async def test_a_token_shows_itself_to_nobody(viewer, session):
    token = await issue_token(
        session, user_id=viewer.id, email=viewer.email, purpose="password_reset"
    )
    assert isinstance(token, SecretStr)
    assert token.get_secret_value() not in repr(token)
