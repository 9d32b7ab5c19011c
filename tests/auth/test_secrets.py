"""No secret can be read where it does not belong: not in a dump, a log, an error or a repr."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from pricebook.auth.one_time import Purpose, issue_token
from pricebook.core.database import Database
from pricebook.core.settings import Settings
from pricebook.serving import listen, url_of
from pricebook.tables import metadata
from pricebook.users.queries import by_email

OLD_PASSWORD = "canary: four old hammers"
RESET_PASSWORD = "canary: a borrowed mallet"
NEW_PASSWORD = "canary: forty new nails"
WRONG_PASSWORD = "canary: typed by mistake"
IDEMPOTENCY_KEY = "canary-idempotency-key"
NO_TOKEN = "pbs_canary-that-was-never-given-out"


async def mailed_token(database: Database, purpose: Purpose) -> str:
    """Make a token as the worker does for a mail to Ann."""
    async with database.sessions.begin() as session:
        ann = (await session.scalars(by_email("ann@example.com"))).one()
        token = await issue_token(session, user_id=ann.id, email=ann.email, purpose=purpose)
    return token.get_secret_value()


async def use_tokens_of_mails(client: httpx2.AsyncClient, database: Database) -> list[str]:
    """Ask for mails, and use what they hold; one of each is left unused."""
    reply = await client.post("/v1/auth/password-reset", json={"email": "ann@example.com"})
    assert reply.status_code == 202
    reset, spare, proof = [
        await mailed_token(database, purpose)
        for purpose in ("password_reset", "password_reset", "verify_email")
    ]
    confirm = "/v1/auth/password-reset/confirm"
    for wrong in (
        {"token": reset, "new_password": "canary"},
        {"token": "pbr_canary", "new_password": RESET_PASSWORD},
        {"token": reset, "new_password": RESET_PASSWORD, "more": reset},
    ):
        reply = await client.post(confirm, json=wrong)
        assert reply.status_code == 422
        assert reset not in reply.text
    body = {"token": reset, "new_password": RESET_PASSWORD}
    assert (await client.post(confirm, json=body)).status_code == 204
    reply = await client.post("/v1/auth/verify-email", json={"token": proof})
    assert reply.status_code == 204
    left = [await mailed_token(database, one) for one in ("password_reset", "verify_email")]
    return [reset, spare, proof, *left]


async def use_every_secret(
    client: httpx2.AsyncClient, admin_token: str, database: Database
) -> list[str]:
    """Send every kind of secret through the service, and return all of them."""
    as_admin = {"Authorization": f"Bearer {admin_token}", "Idempotency-Key": IDEMPOTENCY_KEY}
    new = {"email": "ann@example.com", "name": "Ann", "password": OLD_PASSWORD}
    assert (await client.post("/v1/users", json=new, headers=as_admin)).status_code == 201
    form = {"username": "ann@example.com", "password": OLD_PASSWORD}
    token = (await client.post("/v1/auth/token", data=form)).json()["access_token"]
    as_ann = {"Authorization": f"Bearer {token}", "Idempotency-Key": IDEMPOTENCY_KEY}
    reply = await client.post("/v1/api-keys", json={"name": "Till"}, headers=as_ann)
    key = reply.json()["key"]
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {NO_TOKEN}"}):
        await client.get("/v1/users/me", headers=headers)
    for wrong in (
        {"username": "ann@example.com", "password": WRONG_PASSWORD},
        {"username": WRONG_PASSWORD, "password": WRONG_PASSWORD},
        {"username": "ann@example.com", "password": WRONG_PASSWORD * 200},
    ):
        reply = await client.post("/v1/auth/token", data=wrong)
        assert reply.status_code in {401, 422}
        assert "canary" not in reply.text
    for wrong in ({"password": "canary"}, {"current_password": WRONG_PASSWORD}):
        reply = await client.put("/v1/users/me/password", json=wrong, headers=as_ann)
        assert reply.status_code == 422
        assert "canary" not in reply.text
    mailed = await use_tokens_of_mails(client, database)
    form = {"username": "ann@example.com", "password": RESET_PASSWORD}
    new_token = (await client.post("/v1/auth/token", data=form)).json()["access_token"]
    as_ann["Authorization"] = f"Bearer {new_token}"
    change = {"current_password": RESET_PASSWORD, "new_password": NEW_PASSWORD}
    reply = await client.put("/v1/users/me/password", json=change, headers=as_ann)
    assert reply.status_code == 204
    passwords = [OLD_PASSWORD, RESET_PASSWORD, NEW_PASSWORD, WRONG_PASSWORD]
    return [token, new_token, key, *mailed, *passwords, IDEMPOTENCY_KEY, NO_TOKEN]


async def test_a_dump_holds_no_usable_secret(api, admin, database: Database):
    secrets = [*await use_every_secret(api, api.tokens[admin.id], database), api.tokens[admin.id]]
    dump = ""
    async with database.sessions() as session:
        for table in metadata.sorted_tables:
            rows = await session.scalars(text(f'SELECT t::text FROM "{table.name}" t'))
            dump += "\n".join([table.name, *rows])
    assert "ann@example.com" in dump
    assert "argon2id" in dump
    for secret in secrets:
        assert secret not in dump
        assert secret.encode().hex() not in dump


@pytest.fixture
def own_process(settings: Settings, tmp_path: Path, request) -> Iterator[tuple[str, Path]]:
    """An API process that logs all it can, to a file."""
    assert settings.database_url
    assert settings.redis_url
    log = tmp_path / "log"
    listening = listen("127.0.0.1", 0)
    with log.open("wb") as output, listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "pricebook.api_process", str(listening.fileno())],
            env={
                **os.environ,
                "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
                "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
                "PRICEBOOK_DRAIN_SECONDS": "0",
                "PRICEBOOK_LOG__LEVEL": "DEBUG",
                "PRICEBOOK_LOG__FORMAT": request.param,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
        )
        yield url_of(listening), log
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def broken(database: Database, table: str):
    """Make every use of a table fail, so that errors surface where secrets are at hand."""
    async with database.sessions.begin() as session:
        await session.execute(text(f"ALTER TABLE {table} RENAME TO {table}_broken"))
    try:
        yield
    finally:
        async with database.sessions.begin() as session:
            await session.execute(text(f"ALTER TABLE {table}_broken RENAME TO {table}"))


@pytest.mark.parametrize("own_process", ["json", "console"], indirect=True)
async def test_no_secret_is_logged_even_when_everything_fails(api, admin, own_process, database):
    url, log = own_process
    admin_token = api.tokens[admin.id]
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        secrets = [*await use_every_secret(client, admin_token, database), admin_token]
        form = {"username": "ann@example.com", "password": NEW_PASSWORD}
        as_admin = {"Authorization": f"Bearer {admin_token}"}
        for table in ("known_networks", "failed_attempts", "events", "one_time_tokens"):
            async with broken(database, table):
                new = {"email": "bob@example.com", "name": "Bob", "password": NEW_PASSWORD}
                replies = [
                    await client.post("/v1/auth/token", data=form),
                    await client.post("/v1/users", json=new, headers=as_admin),
                    await client.post("/v1/api-keys", json={"name": "Till"}, headers=as_admin),
                    await client.post("/v1/auth/verify-email", json={"token": NO_TOKEN}),
                ]
            assert 500 in {reply.status_code for reply in replies}
            assert "canary" not in "".join(reply.text for reply in replies)
    written = log.read_text()
    assert "/v1/auth/token" in written
    assert "Traceback" in written
    for secret in secrets:
        assert secret not in written
    assert "canary" not in written
