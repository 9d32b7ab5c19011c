"""The commands beside `up`: what they do, and what they say when something is wrong."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest

from pricebook import cli, doctor
from pricebook.core.schema_head import needed_head
from pricebook.core.settings import load_settings

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

Run = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def scratch(urls: dict[str, str], worker_name: str) -> str:
    url = urls[f"scratch_{worker_name}"]
    async with connected(url) as connection:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    urls: dict[str, str],
    scratch: str,
    tmp_path: Path,
) -> Run:
    """Run a command on an empty database, and return its exit code and all that it said."""
    monkeypatch.setenv("PRICEBOOK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PRICEBOOK_DATABASE_URL", scratch)
    monkeypatch.setenv("PRICEBOOK_REDIS_URL", urls["redis"])

    async def command(*arguments: str, **settings: str) -> tuple[int, str]:
        for name, value in settings.items():
            monkeypatch.setenv(f"PRICEBOOK_{name.upper()}", value)
        monkeypatch.setattr(sys, "argv", ["pricebook", *arguments])
        load_settings.cache_clear()
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(cli.main)
        load_settings.cache_clear()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return command


async def test_migrate_brings_an_empty_database_to_the_head(run: Run, scratch: str) -> None:
    for _ in range(2):
        code, said = await run("migrate")
        assert code == 0
        assert said.strip() == f"The schema is at {needed_head()}."
    async with connected(scratch) as connection:
        assert await connection.fetchval("SELECT count(*) FROM items") == 0


async def test_two_migrations_at_once_do_not_meet(run: Run, scratch: str) -> None:
    code = (
        "from pricebook.core import schema_head, settings;"
        "schema_head.migrate(settings.load_settings())"
    )
    starting = [asyncio.create_subprocess_exec(sys.executable, "-c", code) for _ in range(3)]
    processes = await asyncio.gather(*starting)
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0, 0]


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_production_process_refuses_a_wrong_schema(
    run: Run, scratch: str, command: str
) -> None:
    assert await run(command) == (
        1,
        "pricebook: the database has no tables yet: run `pricebook migrate`\n",
    )
    await run("migrate")
    async with connected(scratch) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    code, said = await run(command)
    assert code == 1
    assert "from_the_future, which this Pricebook does not know" in said


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
async def test_a_database_that_is_away_is_said_in_one_line(run: Run, command: str) -> None:
    code, said = await run(command, database_url=NOWHERE)
    assert code == 1
    assert said.startswith("pricebook: ")
    assert said.endswith("start PostgreSQL, or correct PRICEBOOK_DATABASE_URL\n")
    assert len(said.splitlines()) == 1


async def test_wrong_settings_are_named_one_a_line(run: Run) -> None:
    code, said = await run("migrate", port="many", auth__hash_threads="0")
    assert code == 1
    assert [line.split(":")[1] for line in said.splitlines()] == [
        " PRICEBOOK_PORT",
        " PRICEBOOK_AUTH__HASH_THREADS",
    ]


async def test_without_servers_the_commands_say_where_to_get_them(run: Run) -> None:
    code, said = await run("migrate", database_url="", redis_url="")
    assert code == 1
    assert "or start `pricebook up` first" in said


async def test_the_servers_of_a_running_up_are_found(
    run: Run, scratch: str, urls: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    running = {"database_url": scratch, "redis_url": urls["redis"]}
    (tmp_path / "data" / "run.json").write_text(json.dumps(running))
    code, _ = await run("migrate", database_url="", redis_url="")
    assert code == 0


async def test_create_admin_makes_one_who_can_log_in(run: Run, scratch: str) -> None:
    await run("migrate")
    given = ("create-admin", "--email", "boss@example.com", "--password", "an old harbour map")
    assert await run(*given) == (0, "Made the admin boss@example.com.\n")
    assert await run(*given) == (1, "There is an account for boss@example.com already.\n")
    async with connected(scratch) as connection:
        assert await connection.fetchval("SELECT role FROM users") == "admin"


async def test_create_admin_refuses_a_weak_password(run: Run) -> None:
    await run("migrate")
    code, said = await run("create-admin", "--email", "boss@example.com", "--password", "secret")
    assert code == 1
    assert said.startswith("pricebook: the admin's password will not do")


async def test_openapi_prints_the_document(run: Run) -> None:
    code, said = await run("openapi")
    assert code == 0
    assert "/v1/items" in json.loads(said)["paths"]


async def test_doctor_finds_everything_fine(run: Run) -> None:
    await run("migrate")
    code, said = await run("doctor")
    assert code == 0, said
    subjects = [line.split()[1] for line in said.splitlines()]
    assert subjects == ["settings", "database", "schema", "valkey", "disk"]


async def test_doctor_says_what_to_do_about_each_fault(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_NEEDED_FREE_BYTES", 2**80)
    code, said = await run("doctor", redis_url="redis://127.0.0.1:1")
    assert code == 1
    for advice in ("`pricebook migrate`", "start Valkey", "make room"):
        assert advice in said
    code, said = await run("doctor", database_url=NOWHERE)
    assert code == 1
    assert "start PostgreSQL" in said


async def test_doctor_shows_no_password(run: Run, scratch: str) -> None:
    password = httpx2.URL(scratch).password or ""
    _, said = await run("doctor", database_url=scratch.replace(password, "guessed"))
    assert "guessed" not in said
    assert "correct user and password" in said
