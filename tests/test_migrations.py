"""Migrations go up, down and up again, agree with the models, and lock nothing for long."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from tests.conftest import ROOT, alembic_config, asyncpg_url, connected

Finished = subprocess.CompletedProcess[str]
Step = Callable[[Config, str], None]

SEED = """
INSERT INTO users (id, email, name, role, hashed_password)
VALUES ('019b0000-0000-7000-8000-000000000001', 'a@example.com', 'A', 'admin', 'x');
INSERT INTO items (sku, name, price, currency, tags)
SELECT 'SKU-' || n, 'Item ' || n, n / 100.0, 'EUR', ARRAY['t' || n % 7]
FROM generate_series(1, 500) n;
INSERT INTO events (type, subject_id, payload) SELECT 'item.created', id, '{}' FROM items;
"""
SUM = "SELECT count(*), sum(price), md5(string_agg(sku || price, ',' ORDER BY sku)) FROM items"
LEFT_BEHIND = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
AND relkind IN ('r', 'S', 'v', 'm') AND relname <> 'alembic_version'
UNION ALL
SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
UNION ALL
SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'
"""
WAY = [one.revision for one in ScriptDirectory(ROOT / "migrations").walk_revisions()][::-1]
SHAPE = """
SELECT 'column', table_name || '.' || column_name,
       concat_ws(' ', data_type, collation_name, is_nullable, column_default, generation_expression)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'alembic_version%'
ORDER BY 1, 2, 3
"""
REFUSED = {
    "a price that is no number": "UPDATE items SET price = 'NaN'",
    "a negative price": "UPDATE items SET price = -1",
    "an infinite price": "UPDATE items SET price = 'Infinity'",
    "a currency in lower case": "UPDATE items SET currency = 'eur'",
    "a currency of four letters": "UPDATE items SET currency = 'EURO'",
    "a role that is none": "UPDATE users SET role = 'owner'",
    "an empty sku": "UPDATE items SET sku = ''",
    "a second item with a sku": "UPDATE items SET sku = 'SKU-1'",
}


def run(tool: str, *arguments: str, url: str = "postgresql://nowhere") -> Finished:
    """Run a tool of the environment as an operator does."""
    folder = Path(sys.executable).parent
    return subprocess.run(
        [folder / tool, *arguments],
        cwd=ROOT,
        env={
            "PRICEBOOK_DATABASE_URL": url,
            "PRICEBOOK_REDIS_URL": "redis://nowhere",
            "PATH": f"{folder}:/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def alembic(url: str, *arguments: str) -> Finished:
    return run("alembic", *arguments, url=url)


async def test_up_down_and_up_again_on_seeded_data(scratch: str) -> None:
    assert alembic(scratch, "upgrade", "head").returncode == 0
    async with connected(scratch) as connection:
        await connection.execute(SEED)
        before = await connection.fetchrow(SUM)
    assert before is not None
    assert before["count"] == 500

    down = alembic(scratch, "downgrade", "base")
    assert down.returncode == 0, down.stderr
    async with connected(scratch) as connection:
        assert await connection.fetch(LEFT_BEHIND) == []

    again = alembic(scratch, "upgrade", "head")
    assert again.returncode == 0, again.stderr
    async with connected(scratch) as connection:
        await connection.execute(SEED)
        assert await connection.fetchrow(SUM) == before


@pytest.mark.parametrize("revision", WAY)
async def test_each_revision_goes_up_down_and_up_on_what_was_there(
    revision: str, scratch: str
) -> None:
    config = alembic_config(asyncpg_url(scratch))
    before = WAY[: WAY.index(revision)]

    async def after(move: Step, to: str) -> tuple[object, object]:
        await asyncio.to_thread(move, config, to)
        async with connected(scratch) as connection:
            rows = await connection.fetchrow(SUM) if before else None
            return [tuple(row) for row in await connection.fetch(SHAPE)], rows

    if before:
        await asyncio.to_thread(command.upgrade, config, before[-1])
        async with connected(scratch) as connection:
            await connection.execute(SEED)
    async with connected(scratch) as connection:
        empty = [tuple(row) for row in await connection.fetch(SHAPE)]
    up = await after(command.upgrade, revision)
    assert up[0] != empty
    down = await after(command.downgrade, before[-1] if before else "base")
    assert down == (empty, up[1])
    assert await after(command.upgrade, revision) == up


async def test_alembic_by_hand_does_not_wait_long_for_a_lock_either(scratch: str) -> None:
    config = alembic_config(asyncpg_url(scratch))
    await asyncio.to_thread(command.upgrade, config, WAY[0])
    async with connected(scratch) as holder, holder.transaction():
        await holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")
        async with asyncio.timeout(20):
            with pytest.raises(DBAPIError, match="lock timeout"):
                await asyncio.to_thread(command.upgrade, config, WAY[1])
    async with connected(scratch) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == WAY[0]


async def test_models_and_head_agree(scratch: str) -> None:
    assert alembic(scratch, "upgrade", "head").returncode == 0
    checked = alembic(scratch, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_a_model_that_lacks_its_migration_is_noticed(scratch: str) -> None:
    assert alembic(scratch, "upgrade", "head").returncode == 0
    async with connected(scratch) as connection:
        await connection.execute("ALTER TABLE items DROP COLUMN notes")
    assert alembic(scratch, "check").returncode != 0


async def test_the_head_is_one(scratch: str) -> None:
    heads = alembic(scratch, "heads").stdout.strip().splitlines()
    assert len(heads) == 1


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED.keys())
async def test_postgresql_itself_refuses(
    statement: str, scratch_template: asyncpg.Connection
) -> None:
    with pytest.raises(
        (
            asyncpg.CheckViolationError,
            asyncpg.UniqueViolationError,
            asyncpg.NumericValueOutOfRangeError,
        )
    ):
        await scratch_template.execute(statement)


@pytest.fixture
async def scratch_template(
    urls: dict[str, str], worker_name: str
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a migrated, seeded database, rolled back afterwards."""
    async with connected(urls[f"database_{worker_name}"]) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(SEED)
        yield connection
        await transaction.rollback()


async def test_the_sql_for_a_review_can_be_written_offline(scratch: str) -> None:
    written = alembic(scratch, "upgrade", "head", "--sql")
    assert written.returncode == 0, written.stderr
    assert "SET lock_timeout" in written.stdout
    async with connected(scratch) as connection:
        await connection.execute(written.stdout)
        assert await connection.fetchval("SELECT count(*) FROM items") == 0


def test_squawk_finds_nothing_that_blocks_writers(tmp_path: Path) -> None:
    written = run("alembic-squawk", "--out-dir", str(tmp_path))
    assert written.returncode == 0, written.stdout + written.stderr
    files = [str(path) for path in sorted(tmp_path.glob("*.sql"))]
    assert files
    linted = run("squawk", *files)
    assert linted.returncode == 0, linted.stdout + linted.stderr
