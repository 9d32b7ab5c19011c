"""The sample for PgBouncer: it takes every line of it, and lends servers for a transaction."""

import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests import patroni
from tests.poolers import SHIPPED, PgBouncer


@pytest.fixture
def server(urls: dict[str, str], worker_name: str, tmp_path: Path) -> Iterator[PgBouncer]:
    made = PgBouncer.before(urls[f"database_{worker_name}"], tmp_path)
    made.start()
    yield made
    made.end()


async def test_transactions_of_two_clients_share_a_server(server: PgBouncer) -> None:
    pids = set()
    for _ in range(2):
        client = await asyncpg.connect(server.url, statement_cache_size=0)
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
