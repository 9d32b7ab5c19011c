"""PostgreSQL and Valkey from their wheels, started and stopped by us."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from pricebook.core.embedded import EmbeddedServer, Postgres, Valkey
from pricebook.core.folder import FolderInUseError
from pricebook.core.spawn import command_of

ORPHANS = """
    import os, signal, sys
    from pathlib import Path
    from pricebook.core import spawn
    from pricebook.core.embedded import Postgres, Valkey
    if sys.argv[2] == "untied":
        spawn._die_with = lambda *_: None
    postgres, valkey = Postgres(Path(sys.argv[1]), durable=False), Valkey(Path(sys.argv[1]))
    postgres.start()
    valkey.start()
    print(postgres.pid, valkey.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "a folder", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "a folder")
    server.start()
    yield server
    server.stop()


async def value(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_the_role_owns_its_database_and_is_no_superuser(postgres: Postgres) -> None:
    assert await value(postgres.url, "SHOW server_version_num") >= "180000"
    await value(postgres.url, "CREATE EXTENSION pg_trgm")
    assert await value(postgres.url, "SELECT similarity('crème', 'creme')") > 0
    assert not await value(
        postgres.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    )


async def test_text_sorts_alike_on_every_machine(postgres: Postgres) -> None:
    provider = (
        "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'pricebook'"
    )
    assert await value(postgres.url, provider) == "bC.UTF-8"


async def test_postgres_wants_a_password_and_listens_on_loopback_alone(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="guessed")
    assert await value(postgres.url, "SHOW listen_addresses") == "127.0.0.1"


async def test_valkey_wants_a_password_and_keeps_nothing(valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url) as client:
        assert await client.config_get("save") == {"save": ""}
        assert await client.config_get("appendonly") == {"appendonly": "no"}
    password = valkey.url.split("@")[0].split(":")[2]
    async with Redis.from_url(valkey.url.replace(password, "guessed")) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
    assert password not in command_of(valkey.pid)


@pytest.mark.parametrize("server", [Postgres, Valkey])
def test_secrets_are_readable_by_the_owner_alone(
    server: type[EmbeddedServer], tmp_path: Path
) -> None:
    started = server(tmp_path)
    started.start()
    started.stop()
    for name in ("secrets.json", "server.log"):
        assert stat.S_IMODE((started.folder / name).stat().st_mode) == 0o600


async def test_a_copy_of_a_template_has_its_tables(postgres: Postgres) -> None:
    postgres.create_database("template")
    await value(postgres.url_of("template"), "CREATE TABLE things ()")
    postgres.create_database("copy", template="template")
    assert await value(postgres.url_of("copy"), "SELECT count(*) FROM things") == 0
    kept_open = await asyncpg.connect(postgres.url_of("copy"))
    postgres.drop_database("copy")
    postgres.drop_database("copy")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(postgres.url_of("copy"))
    kept_open.terminate()


async def test_data_port_and_password_outlive_a_restart(postgres: Postgres) -> None:
    url = postgres.url
    await value(url, "CREATE TABLE things AS SELECT 1 AS n")
    postgres.stop()
    again = Postgres(postgres.folder.parent)
    again.start()
    try:
        assert again.url == url
        assert await value(again.url, "SELECT n FROM things") == 1
    finally:
        again.stop()


@pytest.mark.parametrize("server", [Postgres, Valkey])
def test_a_port_taken_meanwhile_is_given_up(server: type[EmbeddedServer], tmp_path: Path) -> None:
    started = server(tmp_path)
    started.start()
    started.stop()
    port = json.loads((started.folder / "secrets.json").read_text())["port"]
    with socket.create_server(("127.0.0.1", port)):
        started.start()
        started.stop()
    assert f":{port}/" not in started.url


async def test_a_killed_server_comes_back_on_its_port(postgres: Postgres, valkey: Valkey) -> None:
    await value(postgres.url, "CREATE TABLE things AS SELECT 1 AS n")
    for server in (postgres, valkey):
        url, pid = server.url, server.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda server=server: not server.is_alive())
        server.start()
        assert server.url == url
        assert server.pid != pid
    assert await value(postgres.url, "SELECT n FROM things") == 1


def test_a_folder_serves_one_at_a_time(postgres: Postgres, tmp_path: Path) -> None:
    with pytest.raises(FolderInUseError, match=str(os.getpid())):
        Postgres(tmp_path / "a folder").start()
    assert postgres.is_alive()


def leave_orphans(folder: Path, tied: str) -> list[int]:
    script = textwrap.dedent(ORPHANS)
    left = subprocess.run(
        [sys.executable, "-c", script, folder, tied], stdout=subprocess.PIPE, text=True, check=False
    )
    return [int(pid) for pid in left.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_no_server_outlives_its_killed_parent(tmp_path: Path) -> None:
    pids = leave_orphans(tmp_path, "tied")
    assert len(pids) == 2
    eventually(lambda: not any(map(command_of, pids)))


def test_what_an_earlier_run_left_behind_is_stopped_first(tmp_path: Path) -> None:
    pids = leave_orphans(tmp_path, "untied")
    assert all(map(command_of, pids))
    for server in (Postgres(tmp_path, durable=False), Valkey(tmp_path)):
        server.start()
        server.stop()
    assert not any(map(command_of, pids))


def test_the_pid_of_a_killed_server_may_be_someone_elses(tmp_path: Path) -> None:
    server = Postgres(tmp_path, durable=False)
    server.start()
    server.stop()
    (server.cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{server.cluster}\n")
    server.start()
    assert server.is_ready()
    server.stop()


def test_a_killed_initdb_leaves_nothing_that_hinders(tmp_path: Path) -> None:
    half_made = tmp_path / "postgres" / "18.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    server = Postgres(tmp_path, durable=False)
    server.start()
    server.stop()
    assert not half_made.exists()


def test_a_very_long_path_will_do(tmp_path: Path) -> None:
    for server in (
        Postgres(tmp_path / ("long" * 50), durable=False),
        Valkey(tmp_path / ("é" * 60)),
    ):
        server.start()
        assert server.is_ready()
        server.stop()
