"""What workers ask many times a second costs the same, however much waits."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from pricebook.webhooks import claims, queries

# The tables of a test are so small that PostgreSQL would rather read all of them.
# What other tests left of statistics is not to matter either: it sorts only where it must.
NO_OTHER_WAY = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
)


@pytest.fixture
async def plan(session):
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    await session.execute(text("SELECT 1"))
    await raw.execute(NO_OTHER_WAY)

    async def explain(statement):
        compiled = statement.compile(
            dialect=PGDialect_asyncpg(), compile_kwargs={"render_postcompile": True}
        )
        values = [compiled.params[name] for name in compiled.positiontup]
        lines = await raw.fetch(f"EXPLAIN {compiled}", *values)
        return "\n".join(line[0] for line in lines)

    return explain


async def test_a_claim_reads_what_is_due_in_its_order(plan):
    found = await plan(
        claims.claimed({uuid4(): 5}, 100, concurrency=10, capacity=1_000, lease_seconds=6)
    )
    assert "ix_webhook_deliveries_due" in found
    sorted_by = [line for line in found.splitlines() if "Sort Key" in line]
    assert sorted_by, "the endpoints, by what is held of them"
    assert not any("due_at" in line for line in sorted_by)


async def test_a_page_of_deliveries_is_read_in_the_order_of_its_index(plan):
    rows = queries.deliveries_to(uuid4())
    found = await plan(queries.page_of(rows, queries.WebhookDelivery, 50, uuid4()))
    assert "Index Scan Backward using ix_webhook_deliveries_endpoint_id" in found
    assert "ix_webhook_attempts_delivery_id" in found


async def test_a_replay_reads_the_log_from_its_moment_on(plan):
    since = datetime(2026, 1, 31, tzinfo=UTC)
    found = await plan(queries.replayed(uuid4(), since, only_undelivered=True))
    assert "pk_events" in found
    a_minute_before = UUID(int=int((since.timestamp() - 60) * 1000) << 80)
    assert f"Index Cond: (id >= '{a_minute_before}'::uuid)" in found


async def test_pruning_reads_what_is_old_and_no_more(plan):
    assert "ix_webhook_deliveries_delivered" in await plan(queries.outdated_deliveries(30))
    found = await plan(queries.untold_messages(30))
    assert "ix_webhook_messages_created_at" in found
    assert "ix_webhook_deliveries_message_id" in found
