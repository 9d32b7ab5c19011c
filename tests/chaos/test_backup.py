"""Promise 42 with a million items: backed up, restored in a fresh cluster, the same row hashes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from tests.backups.conftest import hashes
from tests.conftest import alembic_config, asyncpg_url, connected

from pricebook.backups.making import back_up, in_words
from pricebook.backups.restoring import check, restore
from pricebook.core.embedded import Postgres
from pricebook.core.schema_head import check_schema
from pricebook.core.settings import BackupSettings, FileSettings, Settings

pytestmark = pytest.mark.chaos

ITEMS = 1_000_000
MAKE = f"""
INSERT INTO items (sku, name, description, price, currency, tags, cost)
SELECT 'SKU-' || n, 'Hammer no. ' || n || ', ' || md5(n::text),
       'For nails of ' || n % 200 || ' mm.',
       (n * 7919 % 1000000) / 100.0, (ARRAY['EUR', 'USD', 'GBP'])[1 + n % 3],
       ARRAY['tag-' || n % 50, 'tag-' || n % 7], (n * 104729 % 700000) / 100.0
FROM generate_series(1::bigint, {ITEMS}) n;
INSERT INTO events (type, subject_id, payload, expanded_at)
SELECT 'item.created', id, jsonb_build_object('item_id', id, 'sku', sku, 'tags', tags,
       'price', price, 'currency', currency), now() FROM items;
"""


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[[str], Postgres]]:
    """Make and start a cluster in a folder of that name."""
    with ExitStack() as started:

        def make(name: str) -> Postgres:
            folder = tmp_path / name
            folder.mkdir(mode=0o755)
            server = Postgres(folder)
            server.start()
            started.callback(server.stop)
            return server

        yield make


async def test_a_million_items_come_out_elsewhere_as_they_were(
    new_cluster: Callable[[str], Postgres],
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = new_cluster("here"), new_cluster("elsewhere")
    await asyncio.to_thread(command.upgrade, alembic_config(asyncpg_url(source.url)), "head")
    async with connected(source.url) as connection:
        await connection.execute(MAKE)
        bytes_here = await connection.fetchval("SELECT pg_database_size(current_database())")
    own, other = (
        settings.model_copy(
            update={
                "database_url": SecretStr(asyncpg_url(server.url)),
                "files": FileSettings(
                    url=(tmp_path / f"files-{server.folder.parent.name}").as_uri()
                ),
                "backup": BackupSettings(url=(tmp_path / "backups").as_uri()),
            }
        )
        for server in (source, target)
    )
    began = time.monotonic()
    made = await back_up(own)
    backed_up = time.monotonic()
    await check(own, made.name)
    checked = time.monotonic()
    await restore(other, made.name)
    restored = time.monotonic()
    assert await hashes(target.url) == await hashes(source.url)
    assert made.tables["items"].rows == made.tables["events"].rows == ITEMS
    await check_schema(other)
    with capsys.disabled():
        print(  # noqa: T201 -- what it measures is for people
            f"\n{ITEMS:,} items and as many events: {in_words(bytes_here)} in PostgreSQL, "
            f"{in_words(made.size)} in the backup\n"
            f"backed up and read back in {backed_up - began:.1f} s, checked again in "
            f"{checked - backed_up:.1f} s, restored in {restored - checked:.1f} s"
        )
