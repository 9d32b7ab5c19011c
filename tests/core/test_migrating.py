"""`pricebook migrate`: planned, one at a time, patient with locks, destructive on demand alone."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from pydantic import SecretStr
from tests.conftest import ROOT, asyncpg_url, connected

from pricebook.core import migrating, schema_head
from pricebook.core.settings import Settings

REVISION = '''"""{title}.

Revises: {before}
"""

from alembic import op

from pricebook.core.backfilled import require_backfill
from pricebook.core.online_index import create_index_online

revision = "{name}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Do it."""
    {work}


def downgrade() -> None:
    """Undo it."""
'''
WAITS = "items is read by somebody for long"
_MIGRATION_LOCK = 7_427_423_665


@pytest.fixture
def target(scratch: str, settings: Settings) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(asyncpg_url(scratch))})


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Add revisions to a copy of the migrations."""
    copy = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", copy)
    monkeypatch.setattr(schema_head, "_migrations", lambda: copy)
    for cached in (schema_head.needed_head, schema_head.revisions):
        cached.cache_clear()

    def add(name: str, work: str, title: str = "One more") -> str:
        before = schema_head.needed_head()
        text = REVISION.format(name=name, before=before, work=work, title=title)
        (copy / "versions" / f"2030_01_01_{name}_more.py").write_text(text)
        for cached in (schema_head.needed_head, schema_head.revisions):
            cached.cache_clear()
        return name

    yield add
    for cached in (schema_head.needed_head, schema_head.revisions):
        cached.cache_clear()


class Migration:
    """One that runs in a thread, and all that it has said so far."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.said: list[str] = []
        work = asyncio.to_thread(migrating.migrate, settings, self.said.append, **options)
        self.done = asyncio.ensure_future(work)

    async def has_said(self, words: str) -> None:
        async with asyncio.timeout(20):
            while not any(words in line for line in self.said):
                assert not self.done.done(), self.said
                await asyncio.sleep(0.02)


async def migrate(settings: Settings, **options: Any) -> list[str]:
    migration = Migration(settings, **options)
    await migration.done
    return migration.said


async def columns_of(url: str, table: str) -> set[str]:
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
        )
        return {row[0] for row in rows}


async def test_the_plan_is_said_first_then_each_step_then_where_it_is(target: Settings) -> None:
    said = await migrate(target)
    head = schema_head.needed_head()
    assert said[0] == f"From nothing to {head}:"
    assert said[1].split(maxsplit=2)[:2] == ["0001", "expand"]
    assert sum(" done in " in line for line in said) == len(schema_head.revisions())
    assert said[-1] == f"The schema is at {head}."
    assert await migrate(target) == [said[-1]]


async def test_a_plan_changes_nothing(target: Settings, scratch: str) -> None:
    said: list[str] = []
    assert await asyncio.to_thread(migrating.show_plan, target, said.append)
    assert said[0].startswith("From nothing to ")
    assert await columns_of(scratch, "items") == set()
    await migrate(target)
    said.clear()
    assert not await asyncio.to_thread(migrating.show_plan, target, said.append)
    assert said == [f"The schema is at {schema_head.needed_head()}: nothing to do."]


async def test_it_goes_as_far_as_it_is_told(target: Settings) -> None:
    said = await migrate(target, to="0001")
    assert said[-1] == "The schema is at 0001."
    assert await schema_head.current_head(target) == "0001"


@pytest.mark.parametrize("to", ["0001", "nowhere"])
async def test_there_is_no_way_back_and_none_to_the_unknown(target: Settings, to: str) -> None:
    await migrate(target)
    with pytest.raises(schema_head.SchemaError, match=r"past 0001|no revision nowhere"):
        await migrate(target, to=to)


async def test_what_takes_away_is_refused_until_it_is_allowed(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    add_revision("9001", 'op.execute("ALTER TABLE items ADD COLUMN colour text")')
    add_revision("9002", 'op.execute("ALTER TABLE items DROP COLUMN notes")', "Notes go")
    refused = Migration(target)
    with pytest.raises(migrating.ContractRefusedError, match=r"9002 .* --allow-contract"):
        await refused.done
    assert "  9002  contract  Notes go" in refused.said
    assert "        ALTER TABLE items DROP COLUMN notes" in refused.said
    # Not even what comes before it: a plan is done whole or not at all.
    assert "colour" not in await columns_of(scratch, "items")
    await migrate(target, to="9001")
    await migrate(target, allow_contract=True)
    assert {"colour", "notes"} & await columns_of(scratch, "items") == {"colour"}


async def test_an_empty_database_takes_every_step(
    target: Settings, add_revision: Callable[..., str]
) -> None:
    add_revision("9001", 'op.execute("ALTER TABLE items DROP COLUMN notes")')
    assert (await migrate(target))[-1] == "The schema is at 9001."


async def test_a_step_waits_for_its_locks_without_holding_up_readers(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    add_revision("9001", 'op.execute("ALTER TABLE items ADD COLUMN colour text")')
    async with connected(scratch) as holder, connected(scratch) as reader:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("SELECT count(*) FROM items")
        migration = Migration(target)
        waits = []
        while sum("again in" in line for line in migration.said) < 2:
            began = time.monotonic()
            await reader.fetch("SELECT count(*) FROM items")
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
        # A reader stands behind the step for as long as that waits for its lock: a second.
        assert 0.1 < max(waits) < 2
        await transaction.rollback()
        await migration.done
    assert "colour" in await columns_of(scratch, "items")


async def test_a_step_that_fails_leaves_nothing_of_itself(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    add_revision("9001", 'op.execute("ALTER TABLE items ADD COLUMN colour text")')
    half = 'op.execute("ALTER TABLE items ADD COLUMN size text"); op.execute("SELECT 1 / 0")'
    add_revision("9002", half)
    with pytest.raises(Exception, match="division by zero"):
        await migrate(target)
    assert await schema_head.current_head(target) == "9001"
    assert {"colour", "size"} & await columns_of(scratch, "items") == {"colour"}


async def test_two_at_once_take_turns_and_say_so(target: Settings, scratch: str) -> None:
    async with connected(scratch) as other:
        await other.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        migration = Migration(target)
        await migration.has_said("Another migration is under way")
        assert await columns_of(scratch, "items") == set()
    await migration.done
    assert await columns_of(scratch, "items")


async def test_three_at_once_do_each_step_once(target: Settings) -> None:
    migrations = [Migration(target) for _ in range(3)]
    await asyncio.gather(*(migration.done for migration in migrations))
    said = [line for migration in migrations for line in migration.said]
    assert sum(" done in " in line for line in said) == len(schema_head.revisions())
    assert all(migration.said[-1] == said[-1] for migration in migrations)


async def test_after_an_index_that_took_its_time_the_next_revision_has_its_limits(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    add_revision("9001", 'create_index_online("ix_items_tax_rate", "items (tax_rate)")')
    seen = "SELECT name, setting FROM pg_settings WHERE name LIKE '%_timeout'"
    add_revision("9002", f'op.execute("CREATE TABLE seen AS {seen}")')
    config = schema_head.alembic_config()
    config.attributes["url"] = asyncpg_url(scratch)
    # By hand, so that both are done in one session.
    await asyncio.to_thread(command.upgrade, config, "head")
    async with connected(scratch) as connection:
        limits = dict(await connection.fetch("SELECT name, setting FROM seen"))
    assert (limits["lock_timeout"], limits["statement_timeout"]) == ("1000", "600000")


async def test_an_index_is_built_online_and_what_a_failed_build_left_is_replaced(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    work = 'create_index_online("ux_items_name", "items (name)", is_unique=True)'
    add_revision("9001", work)
    async with connected(scratch) as connection:
        await connection.execute(
            "INSERT INTO items (sku, name, price, currency) "
            "SELECT 'SKU-' || n, 'Hammer', 1, 'EUR' FROM generate_series(1, 2) n"
        )
        with pytest.raises(Exception, match="could not create unique index"):
            await migrate(target)
        assert await is_valid(connection) is False
        await connection.execute("DELETE FROM items WHERE sku = 'SKU-2'")
        # A transaction that only waits is outlived, and holds up nothing but the build.
        async with connected(scratch) as holder:
            transaction = holder.transaction()
            await transaction.start()
            await holder.execute("UPDATE items SET name = 'Saw'")
            building = Migration(target)
            await asyncio.sleep(1.5)
            assert not building.done.done(), building.said
            await transaction.commit()
            await building.done
        assert await is_valid(connection) is True


DEMANDING = """
    require_backfill("items_colour", "items")
    op.execute("ALTER TABLE items ADD COLUMN colour text")"""


async def test_a_step_demands_that_a_backfill_has_finished(
    target: Settings, scratch: str, add_revision: Callable[..., str]
) -> None:
    await migrate(target)
    add_revision("9001", 'op.execute("ALTER TABLE items ADD COLUMN size text")')
    add_revision("9002", DEMANDING.strip())
    async with connected(scratch) as connection:
        await connection.execute(
            "INSERT INTO items (sku, name, price, currency) VALUES ('A', 'Hammer', 1, 'EUR');"
            "INSERT INTO backfills (name) VALUES ('items_colour')"
        )
        with pytest.raises(
            migrating.BackfillUnfinishedError,
            match="run `pricebook backfill items_colour --wait`, and then this again",
        ):
            await migrate(target)
        assert {"colour", "size"} & await columns_of(scratch, "items") == {"size"}
        await connection.execute("UPDATE backfills SET finished_at = now()")
    assert (await migrate(target))[-1] == "The schema is at 9002."


async def test_an_empty_table_needs_no_backfill(
    target: Settings, add_revision: Callable[..., str]
) -> None:
    add_revision("9001", DEMANDING.strip())
    assert (await migrate(target))[-1] == "The schema is at 9001."


async def is_valid(connection: asyncpg.Connection) -> bool | None:
    """Whether the index is of use; None if there is none."""
    statement = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ux_items_name')"
    return await connection.fetchval(statement)
