"""The commands beside `up`: what they do, and what they say when something is wrong."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.conftest import connected

from pricebook import cli, doctor
from pricebook.core.schema_head import needed_head
from pricebook.core.sealing import Sealer
from pricebook.core.settings import Settings, load_settings

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

Run = Callable[..., Awaitable[tuple[int, str]]]


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
        assert said.splitlines()[-1] == f"The schema is at {needed_head()}."
    async with connected(scratch) as connection:
        assert await connection.fetchval("SELECT count(*) FROM items") == 0


async def test_two_migrations_at_once_do_not_meet(run: Run, scratch: str) -> None:
    code = (
        "from pricebook.core import migrating, settings;migrating.migrate(settings.load_settings())"
    )
    starting = [asyncio.create_subprocess_exec(sys.executable, "-c", code) for _ in range(3)]
    processes = await asyncio.gather(*starting)
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0, 0]


async def test_create_admin_says_what_is_missing_before_it(run: Run, scratch: str) -> None:
    given = ("create-admin", "--email", "boss@example.com", "--password", "an old harbour map")
    code, said = await run(*given)
    assert (code, "run `pricebook migrate`" in said) == (1, True)


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
    api = {"url": "http://127.0.0.1:8000", "pids": []}
    running = {"api": api, "database_url": scratch, "redis_url": urls["redis"]}
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
        # Whoever runs the service vouches for the address.
        assert await connection.fetchval("SELECT email_verified_at FROM users") is not None


async def test_create_admin_refuses_a_weak_password(run: Run) -> None:
    await run("migrate")
    code, said = await run("create-admin", "--email", "boss@example.com", "--password", "secret")
    assert code == 1
    assert said.startswith("pricebook: the admin's password will not do")


async def test_openapi_prints_the_document(run: Run) -> None:
    code, said = await run("openapi")
    assert code == 0
    assert "/v1/items" in json.loads(said)["paths"]


SIGNS_OF_LIFE = ("arq:queue:health-check", "pricebook:jobs:health-check")


@pytest.fixture
async def worker_alive(urls: dict[str, str]) -> AsyncIterator[None]:
    """The signs of life that arq's workers give; test_worker.py has real ones."""
    async with Redis.from_url(urls["redis"]) as valkey:
        for sign in SIGNS_OF_LIFE:
            await valkey.set(sign, "works", px=60_000)
        yield
        await valkey.delete(*SIGNS_OF_LIFE)


@pytest.fixture
def finding(run: Run, worker_alive: None, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """Run the doctor where all is well but for what is given, and return its line on a subject."""

    async def find(subject: str, **settings: str) -> str:
        given = {"secret_key": "k" * 32, "mail__url": (tmp_path / "mail").as_uri(), **settings}
        _, said = await run("doctor", **given)
        (line,) = [line for line in said.splitlines() if line[7:].startswith(subject)]
        return line

    return find


async def test_doctor_finds_everything_fine(run: Run, worker_alive: None, smtp: Controller) -> None:
    await run("migrate")
    mail_url = f"smtp://{smtp.hostname}:{smtp.port}"
    code, said = await run("doctor", secret_key="k" * 32, mail__url=mail_url)
    assert code == 0, said
    subjects = [line[7:18].strip() for line in said.splitlines()]
    assert subjects == [
        "settings",
        "database",
        "replica",
        "schema",
        "valkey",
        "worker",
        "deliveries",
        "jobs",
        "files",
        "mail",
        "secret key",
        "disk",
        "backups",
    ]


@pytest.fixture
def smtp() -> Iterator[Controller]:
    """A mail server that takes whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(Sink(), hostname="127.0.0.1", port=port)
    server.start()
    yield server
    server.stop()


async def test_doctor_says_that_no_worker_works(
    run: Run, monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]
) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_SECONDS", 0.5)
    async with Redis.from_url(urls["redis"]) as valkey:
        await valkey.delete(*SIGNS_OF_LIFE)
    _, said = await run("doctor")
    assert "WRONG  worker" in said
    assert "start `pricebook worker`" in said


async def test_doctor_says_that_no_worker_takes_jobs(
    finding: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]
) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_SECONDS", 0.5)
    async with Redis.from_url(urls["redis"]) as valkey:
        await valkey.delete("pricebook:jobs:health-check")
    line = await finding("worker")
    assert line.startswith("WRONG  worker     works, but none takes jobs")
    assert "PRICEBOOK_JOBS__CONCURRENCY" in line


async def test_doctor_says_which_jobs_wait_and_how_many_failed(
    run: Run, finding: Callable[..., Awaitable[str]], scratch: str
) -> None:
    await run("migrate")
    assert await finding("jobs") == "ok     jobs       none waits"
    needed = "kind, params, role, scope, rank_at, expected_seconds, is_told"
    values = "'count', '{}', 'viewer', 'items:read', now(), 1, false"
    async with connected(scratch) as connection:
        await connection.execute(
            f"""
            INSERT INTO jobs ({needed}, due_at) VALUES ({values}, now() - interval '3 min');
            INSERT INTO jobs ({needed}, status, finished_at)
                VALUES ({values}, 'failed', now() - interval '1 hour');
            INSERT INTO jobs ({needed}, status, finished_at)
                VALUES ({values}, 'failed', now() - interval '2 days');
            """
        )
    assert await finding("jobs") == (
        "WRONG  jobs       the next has waited for 3 min, and no worker takes it: see that one "
        "runs; failed in the last day: 1, see `pricebook jobs list`"
    )


async def test_doctor_says_what_waits_and_what_was_given_up(
    run: Run, finding: Callable[..., Awaitable[str]], scratch: str
) -> None:
    assert "unknown while the database cannot be asked" in await finding("deliveries")
    await run("migrate")
    assert await finding("deliveries") == "ok     deliveries none waits"
    async with connected(scratch) as connection:
        await connection.execute(
            """
            INSERT INTO users (email, name, role, hashed_password)
                VALUES ('a@example.com', 'A', 'viewer', 'x');
            INSERT INTO mails (user_id, kind, due_at)
                SELECT id, 'verify_email', now() - interval '3 min' FROM users;
            INSERT INTO mails (user_id, kind, status, settled_at)
                SELECT id, 'security', 'dead', now() - interval '1 hour' FROM users;
            INSERT INTO mails (user_id, kind, status, settled_at)
                SELECT id, 'security', 'dead', now() - interval '2 days' FROM users;
            """
        )
    assert await finding("deliveries") == (
        "WRONG  deliveries the longest that any waits is 3 min (mails): see that a worker runs, "
        "and that receivers answer; given up in the last day: mails 1"
    )
    without = {"mail__url": ""}
    assert (await finding("deliveries", **without)).startswith("ok     deliveries none waits")
    assert "set PRICEBOOK_MAIL__URL" in await finding("mail", **without)


async def test_doctor_asks_the_mail_server(
    finding: Callable[..., Awaitable[str]], smtp: Controller, tmp_path: Path
) -> None:
    at = f"{smtp.hostname}:{smtp.port}"
    assert await finding("mail", mail__url=f"smtp://{at}") == "ok     mail       127.0.0.1 answers"
    wrong = {
        "smtp://127.0.0.1:1": "start the mail server, or correct PRICEBOOK_MAIL__URL",
        f"smtp://canary:canary@{at}": "correct PRICEBOOK_MAIL__URL",
        (tmp_path / "file").as_uri(): "is no folder to write to: correct PRICEBOOK_MAIL__URL",
    }
    (tmp_path / "file").touch()
    for url, advice in wrong.items():
        line = await finding("mail", mail__url=url)
        assert line.startswith("WRONG  mail")
        assert line.endswith(advice)
        assert "canary" not in line
    written = await finding("mail")
    assert written == f"ok     mail       written to {tmp_path / 'mail'}, and not sent"


async def test_doctor_tries_the_secret_key_on_what_is_stored(
    run: Run, finding: Callable[..., Awaitable[str]], scratch: str
) -> None:
    await run("migrate")
    assert "set PRICEBOOK_SECRET_KEY" in await finding("secret key", secret_key="")
    assert await finding("secret key") == "ok     secret key set"
    keys = [letter * 32 for letter in "abc"]
    async with connected(scratch) as connection:
        for key, old in ((keys[0], keys[1]), (keys[1], keys[2])):
            sealed = [Sealer(Settings(secret_key=one)).seal(SecretStr("x")) for one in (key, old)]
            await connection.execute(
                "INSERT INTO webhook_endpoints (url, sealed_secret, old_sealed_secret, "
                "old_secret_until) VALUES ('https://example.com', $1, $2, now() + interval '1 h')",
                *sealed,
            )
    fine = await finding("secret key", secret_key=",".join(keys))
    assert fine == "ok     secret key opens all of 4 webhook secrets"
    line = await finding("secret key", secret_key=",".join(keys[:2]))
    assert line.startswith("WRONG  secret key does not open 1 of 4 webhook secrets: add the key")
    assert "aaaa" not in line


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


async def test_doctor_writes_a_small_file_where_files_are_kept(
    finding: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    assert (
        await finding("files", files__url=folder.as_uri())
        == f"ok     files      to be kept in {folder}"
    )
    folder.mkdir()
    said = await finding("files", files__url=folder.as_uri())
    assert said == f"ok     files      written to and read from {folder}"
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    (folder / "doctor").rmdir()
    (folder / "doctor").touch()
    assert "correct PRICEBOOK_FILES__URL" in await finding("files", files__url=folder.as_uri())
    in_a_file = (folder / "doctor" / "files").as_uri()
    assert "is no folder to write to" in await finding("files", files__url=in_a_file)


async def test_doctor_says_that_a_store_does_not_answer(
    finding: Callable[..., Awaitable[str]],
) -> None:
    options = {
        "aws_endpoint": "http://127.0.0.1:1",
        "aws_access_key_id": "x",
        "aws_secret_access_key": "canary",
        "allow_http": "true",
    }
    said = await finding("files", files__url="s3://prices/here", files__options=json.dumps(options))
    assert said.startswith("WRONG")
    assert "127.0.0.1:1" in said
    assert "canary" not in said
