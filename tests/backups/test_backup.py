"""What is backed up comes out elsewhere as it was; what is not whole never passes for it."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.backups.conftest import ITEMS, ask, blocks, hashes, url_of
from tests.conftest import PASSWORD, Api, connected
from tests.shell import Shell

from pricebook.backups import restoring
from pricebook.backups.age import look_at_backups
from pricebook.backups.making import back_up
from pricebook.backups.manifest import Manifest
from pricebook.backups.programs import Programs, _access
from pricebook.backups.restoring import Consent, check, restore
from pricebook.backups.shelf import BackupError, Shelf, expired
from pricebook.core.files import Files
from pricebook.core.mendable import MendableError
from pricebook.core.pagination import encode_cursor
from pricebook.core.schema_head import SchemaError, check_schema, needed_head
from pricebook.core.settings import BackupSettings, Settings
from pricebook.events.queries import snapshot
from pricebook.main import create_app
from pricebook.prepare import make_admin
from pricebook.tables import metadata


def folder_of(settings: Settings, made: Manifest) -> Path:
    return Path(str(settings.backup.url).removeprefix("file://")) / made.name


async def test_a_restore_elsewhere_has_the_same_row_hashes_and_serves(
    price_list: Settings, made: Manifest, elsewhere: Settings
) -> None:
    before = await hashes(url_of(price_list))
    assert {name: rows for name, (rows, _) in before.items() if not rows} == {}
    assert before.keys() == {table.name for table in metadata.sorted_tables} | {"alembic_version"}
    assert {name: one.rows for name, one in made.tables.items()} == {
        name: rows for name, (rows, _) in before.items() if name != "alembic_version"
    }
    said: list[str] = []
    await restore(elsewhere, made.name, say=said.append)
    assert await hashes(url_of(elsewhere)) == before
    await check_schema(elsewhere)
    whole = [piece async for piece in Files(elsewhere).read("exports/a.csv")]
    assert b"".join(whole) == b"".join([block async for block in blocks()])
    application = create_app(elsewhere)
    async with application.router.lifespan_context(application), Api(application, {}) as api:
        reply = await api.get("/v1/items/public?limit=200&count=exact")
        assert (reply.status_code, reply.headers["X-Total-Count"]) == (200, str(ITEMS))
    assert "everyone has to log in again" in " ".join(said)


async def test_it_shows_one_moment_though_others_write(
    price_list: Settings, elsewhere: Settings
) -> None:
    """Each write makes an item and its event in one commit; the backup has both or neither."""
    stop = asyncio.Event()

    async def write() -> None:
        async with connected(url_of(price_list)) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                await connection.execute(
                    "WITH made AS (INSERT INTO items (sku, name, price, currency) VALUES "
                    f"('NEW-{number}', 'N', 1, 'EUR') RETURNING id) "
                    "INSERT INTO events (type, subject_id, payload) "
                    "SELECT 'item.created', id, '{}' FROM made"
                )

    writing = asyncio.create_task(write())
    made = await back_up(price_list)
    stop.set()
    await writing
    assert made.tables["items"].rows == made.tables["events"].rows
    assert made.tables["items"].rows < await ask(price_list, "SELECT count(*) FROM items")
    await restore(elsewhere, made.name)
    alone = "SELECT count(*) FROM items WHERE id NOT IN (SELECT subject_id FROM events)"
    assert await ask(elsewhere, alone) == 0


@pytest.mark.parametrize(
    ("part", "harm"),
    [("dump", "one bit"), ("dump", "its end"), ("files/exports/a.csv", "all of it")],
)
async def test_a_spoilt_part_is_noticed_before_anything_is_touched(
    price_list: Settings, made: Manifest, part: str, harm: str
) -> None:
    path = folder_of(price_list, made) / part
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "all of it":
        path.unlink()
    else:
        path.write_bytes(content if harm == "one bit" else path.read_bytes()[:-1])
    before = await hashes(url_of(price_list))
    for attempt in (check(price_list, None), restore(price_list, None, Consent(replaces=True))):
        with pytest.raises(BackupError, match=f"is spoilt: {part}"):
            await attempt
    assert await hashes(url_of(price_list)) == before


async def test_what_is_read_back_otherwise_than_written_is_no_backup(
    price_list: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Files.read

    async def forgetful(self: Files, name: str) -> AsyncIterator[bytes]:
        async for piece in read(self, name):
            yield piece[:-1] + bytes([piece[-1] ^ 1])

    monkeypatch.setattr(Files, "read", forgetful)
    with pytest.raises(BackupError):
        await back_up(price_list)
    assert await Shelf(price_list).names() == []


def shell_of(settings: Settings, folder: Path) -> Shell:
    return Shell(
        folder,
        database_url=url_of(settings),
        redis_url="redis://127.0.0.1:1",
        files__url=str(settings.files.url),
        backup__url=str(settings.backup.url),
    )


async def test_broken_off_at_any_moment_it_never_passes_for_whole(
    price_list: Settings, tmp_path: Path
) -> None:
    shell = shell_of(price_list, tmp_path)
    for number, (delay, kill) in enumerate([(0.0, signal.SIGTERM), (0.1, signal.SIGKILL)]):
        process = await shell.start("backup")
        assert process.stdout
        await process.stdout.readline()
        await asyncio.sleep(delay)
        if process.returncode is None:
            process.send_signal(kill)
        await process.communicate()
        names = await Shelf(price_list).names()
        for name in names:
            await check(price_list, name)
        # Either it was too late to break it off, or there is nothing that counts.
        assert len(names) <= number + 1
        assert process.returncode == 0 or kill is signal.SIGKILL or process.returncode == 1


async def test_what_was_broken_off_is_deleted_once_it_is_old(
    price_list: Settings, made: Manifest, tmp_path: Path
) -> None:
    backups = tmp_path / "backups"
    for name in ("20200101T000000Z-abcd", "somebody elses"):
        (backups / name).mkdir()
        (backups / name / "dump").write_text("a beginning")
    young = backups / "20200102T000000Z-abcd" / "dump"
    young.parent.mkdir()
    young.write_text("under way")
    for old in backups.glob("*/dump"):
        if old != young:
            os.utime(old, (time.time() - 300_000, time.time() - 300_000))
    assert await Shelf(price_list).clear() == ["20200101T000000Z-abcd"]
    assert sorted(path.parent.name for path in backups.glob("*/dump")) == sorted(
        [young.parent.name, made.name, "somebody elses"]
    )


def test_old_ones_go_but_never_the_newest() -> None:
    moment = datetime(2026, 11, 26, tzinfo=UTC)
    names = [f"{moment - timedelta(days=day):%Y%m%dT%H%M%SZ}-0000" for day in (40, 35, 31, 29, 1)]
    kept = {1: names[3:], 2: names[3:], 3: names[2:], 9: names}
    for keep, left in kept.items():
        gone = expired(names, BackupSettings(keep=keep, keep_days=30), moment)
        assert [name for name in names if name not in gone] == left
    assert expired(names[:1], BackupSettings(keep=1, keep_days=1), moment) == []


async def test_a_database_with_tables_is_replaced_with_consent_alone(
    price_list: Settings, made: Manifest
) -> None:
    before = await hashes(url_of(price_list))
    async with connected(url_of(price_list)) as connection:
        await connection.execute("DELETE FROM items; CREATE TABLE of_a_newer_version (id int)")
    with pytest.raises(BackupError, match="23 tables already: say --replace"):
        await restore(price_list, made.name)
    async with connected(url_of(price_list)):
        with pytest.raises(BackupError, match="in use by 1 other sessions"):
            await restore(price_list, made.name, Consent(replaces=True))
    assert await ask(price_list, "SELECT count(*) FROM items") == 0
    await restore(price_list, made.name, Consent(replaces=True))
    assert await hashes(url_of(price_list)) == before


async def test_a_restore_that_is_broken_off_leaves_a_database_that_nothing_runs_on(
    made: Manifest, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Programs.restore

    async def until_data(self: Programs, *arguments: object) -> None:
        if "post-data" in arguments:
            raise asyncio.CancelledError
        await full(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Programs, "restore", until_data)
        with pytest.raises(asyncio.CancelledError):
            await restore(elsewhere, made.name)
    assert await ask(elsewhere, "SELECT count(*) FROM items") == ITEMS
    with pytest.raises(SchemaError, match="no tables yet"):
        await check_schema(elsewhere)
    await restore(elsewhere, made.name, Consent(replaces=True))
    await check_schema(elsewhere)


async def test_other_rows_than_were_backed_up_are_noticed(
    made: Manifest, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Programs.restore

    async def with_a_change(self: Programs, *arguments: object) -> None:
        await full(self, *arguments)
        if "data" in arguments:
            async with connected(url_of(elsewhere)) as connection:
                await connection.execute("UPDATE items SET price = 0 WHERE sku = 'SKU-7'")

    monkeypatch.setattr(Programs, "restore", with_a_change)
    with pytest.raises(BackupError, match=r"came out in items$"):
        await restore(elsewhere, made.name)
    with pytest.raises(SchemaError):
        await check_schema(elsewhere)


async def test_log_ins_end_with_a_restore_unless_they_are_to_be_kept(
    made: Manifest, elsewhere: Settings
) -> None:
    good = (
        "SELECT count(*) FROM sessions JOIN users ON users.id = user_id "
        "WHERE sessions.credentials_epoch = users.credentials_epoch"
    )
    await restore(elsewhere, made.name, Consent(keeps_sessions=True))
    assert await ask(elsewhere, good) == 1
    await restore(elsewhere, made.name, Consent(replaces=True))
    assert await ask(elsewhere, good) == 0


async def test_what_another_version_made_is_restored_by_it(
    price_list: Settings, made: Manifest, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "revisions", lambda: frozenset({"0001"}))
    with pytest.raises(BackupError, match=f"restore it with version {made.version} or later"):
        await restore(elsewhere, made.name)
    assert await ask(elsewhere, "SELECT count(*) FROM items") is None


async def test_one_can_be_made_before_the_schema_is_migrated(price_list: Settings) -> None:
    async with connected(url_of(price_list)) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert (await back_up(price_list)).head == "0001"


async def test_a_key_that_is_missing_is_told_and_none_is_in_the_backup(
    price_list: Settings, made: Manifest, elsewhere: Settings
) -> None:
    said: list[str] = []
    other = elsewhere.model_copy(update={"secret_key": SecretStr("another key, long enough " * 2)})
    await restore(other, made.name, say=said.append)
    assert any("PRICEBOOK_SECRET_KEY: it lacks a key" in line for line in said)
    assert price_list.secret_key is not None
    written = (folder_of(price_list, made) / "manifest.json").read_text()
    assert price_list.secret_key.get_secret_value() not in written


async def test_no_password_is_on_a_command_line() -> None:
    url = "postgresql://me:s%40cret@db.example:5432/x?ssl=require&command_timeout=5"
    settings = Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://x"))
    shown, env = _access(settings)
    assert shown == "postgresql://me@db.example:5432/x?sslmode=require"
    assert env["PGPASSWORD"] == "s@cret"
    assert not any(name.startswith("PRICEBOOK_") for name in env)


async def test_programs_that_are_too_old_are_named(price_list: Settings, tmp_path: Path) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.3'\n")
    (tmp_path / "pg_dump").chmod(0o755)
    old = price_list.backup.model_copy(update={"programs": tmp_path})
    with pytest.raises(BackupError, match="has 15: install Debian's postgresql-client-18"):
        await back_up(price_list.model_copy(update={"backup": old}))


async def test_the_commands_make_list_and_restore(price_list: Settings, tmp_path: Path) -> None:
    shell = shell_of(price_list, tmp_path)
    made = await shell.run("backup")
    assert made.code == 0, made.said
    name = made.out.split()[3].rstrip(".")
    listed = await shell.run("backups")
    assert listed.out.startswith(f"{name}  ")
    assert f"{ITEMS:,} items      1 files" in listed.out
    assert f"schema {needed_head()}" in listed.out
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "backups").rglob("*"))
    restored = await shell.run("restore", name, "--replace")
    assert restored.code == 0, restored.said
    assert "the same rows" in restored.out
    away = await shell.run("backup", backup__url="file:///proc/nowhere")
    assert (away.code, len(away.said.splitlines())) == (1, 1)
    assert "correct PRICEBOOK_BACKUP__URL" in away.said


async def test_doctor_complains_of_none_and_of_an_old_one(
    price_list: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = price_list.model_copy(update={"backup": BackupSettings()})
    assert "PRICEBOOK_BACKUP__URL is not set" in await look_at_backups(unset)
    with pytest.raises(MendableError, match="no whole one"):
        await look_at_backups(price_list)
    await back_up(price_list)
    assert await look_at_backups(price_list) == "1, the newest 0.0 h old"
    monkeypatch.setattr(
        "pricebook.backups.age.now", lambda: datetime.now(UTC) + timedelta(hours=27)
    )
    with pytest.raises(MendableError, match=r"the newest 27\.0 h old"):
        await look_at_backups(price_list)


async def test_a_reader_of_the_log_misses_nothing_or_is_told(
    price_list: Settings, elsewhere: Settings
) -> None:
    """The cluster that the backup is of had got much further than the one that it comes to."""
    async with connected(url_of(price_list)) as connection:
        await connection.execute(
            "UPDATE events SET transaction_id = (transaction_id::text::bigint + 10^9)::text::xid8"
        )
        log = str(await connection.fetchval(snapshot().sql)).partition("-")[0]
    await restore(elsewhere, (await back_up(price_list)).name)
    await make_admin(elsewhere, "me@example.com", SecretStr(PASSWORD))
    lasting = elsewhere.stream.model_copy(update={"max_age_seconds": 0.7})
    application = create_app(elsewhere.model_copy(update={"stream": lasting}))
    async with application.router.lifespan_context(application), Api(application, {}) as client:
        form = {"username": "me@example.com", "password": PASSWORD}
        token = (await client.post("/v1/auth/token", data=form)).json()["access_token"]
        api = client.with_token(token)
        # What lies before is there at once, in order, and new events come after it.
        new = {"sku": "NEW", "name": "N", "price": "1", "currency": "EUR"}
        assert (await api.post("/v1/items", json=new)).status_code == 201
        told = await pages_of(api, "/v1/events?sort=occurred_at&limit=200&type=item.created")
        assert len(told) == ITEMS + 1
        assert [event["id"] for event in told] == sorted(event["id"] for event in told)
        assert told[-1]["data"]["sku"] == "NEW"
        other = encode_cursor("occurred_at", [f"{log}-700."])
        page = await api.get(f"/v1/events?sort=occurred_at&cursor={other}")
        assert (page.status_code, "query/cursor" in page.text) == (422, True)
        # A place of before, be its numbers ahead or long passed, is one of another log.
        for place in (f"{log}-{10**9 + 5000}.", f"{log}-700.", "700."):
            stream = await api.get("/v1/events/stream", headers={"Last-Event-ID": place})
            assert "event: log.truncated" in stream.text
            assert "data: {}" in stream.text
        # A place of now goes on as ever.
        place = re.findall(r"^id: (\S+)$", stream.text, re.MULTILINE)[-1]
        assert (await api.post("/v1/items", json=new | {"sku": "NEWER"})).status_code == 201
        stream = await api.get("/v1/events/stream", headers={"Last-Event-ID": place})
        assert "log.truncated" not in stream.text
        assert [line for line in stream.text.splitlines() if line.startswith("event: ")] == [
            "event: item.created"
        ]


async def pages_of(api: Api, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.get(f"{path}&cursor={cursor}" if cursor else path)).json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found
