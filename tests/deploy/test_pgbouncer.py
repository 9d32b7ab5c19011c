"""The sample for PgBouncer: it takes every line of it, and lends servers for a transaction."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests import patroni
from tests.poolers import SHIPPED, PgBouncer

from pricebook.core.embedded.server import _free_port


@pytest.fixture
def server(urls: dict[str, str], worker_name: str, tmp_path: Path) -> Iterator[PgBouncer]:
    url = urlsplit(urls[f"database_{worker_name}"])
    users = f'"{url.username}" "{url.password}"\n'
    place = f"host={url.hostname} port={url.port} dbname={url.path[1:]}"
    made = PgBouncer("pgbouncer", tmp_path, _free_port(), place, users)
    patroni.give_away(tmp_path)
    made.launch()
    yield made
    made.end()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_transactions_of_two_clients_share_a_server(
    server: PgBouncer, urls: dict[str, str], worker_name: str
) -> None:
    patroni.until(lambda: listens(server.port), 10, f"it does not start: {server.log}")
    url = urlsplit(urls[f"database_{worker_name}"])
    through = f"postgresql://{url.username}:{url.password}@127.0.0.1:{server.port}/pricebook"
    pids = set()
    for _ in range(2):
        client = await asyncpg.connect(through, statement_cache_size=0)
        pids.add(await client.fetchval("SELECT pg_backend_pid()"))
        pids.add(await client.fetchval("SELECT pg_backend_pid()"))
        await client.close()
    assert len(pids) == 1
    assert not re.search(r"(ERROR|WARNING|FATAL)", server.log.read_text()), server.log.read_text()


def test_postgresql_has_room_for_every_server_that_it_opens() -> None:
    text = (SHIPPED / "pgbouncer.ini").read_text()
    found = re.search(r"^default_pool_size = (\d+)$", text, re.MULTILINE)
    assert found
    most = patroni.shipped()["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"]
    # The rest is for migrations, backups, replicas' reads and whoever looks after it.
    assert int(found[1]) < most / 2
