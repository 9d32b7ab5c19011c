"""Through a pooler all is as without one, though many share few connections."""

import asyncio
from collections import Counter

import asyncpg
import pytest
from sqlalchemy import func, literal, select
from tests.poolers import PgBouncer

from pricebook.core.migrating import migrate
from pricebook.core.reading import Compiled
from pricebook.core.schema_head import DatabaseAwayError, needed_head

NEW = {"name": "Hammer", "price": "12.50", "currency": "EUR", "tags": ["tool"]}


def new(number: int) -> dict:
    return {**NEW, "sku": f"P-{number}"}


async def test_many_at_once_share_few_connections(through, recorded):
    """Those who write, and have their answer kept, and those who read, all wait for their turn."""
    posts = [
        through.post("/v1/items", json=new(number), headers={"Idempotency-Key": f"k-{number % 20}"})
        for number in [*range(20), *range(20)]
    ]
    replies = await asyncio.gather(*posts, *(through.get("/v1/items") for _ in range(40)))
    statuses = Counter(reply.status_code for reply in replies)
    assert statuses.keys() <= {200, 201, 409}
    items = (await through.get("/v1/items?limit=200")).json()["items"]
    assert sorted(item["sku"] for item in items) == sorted(f"P-{n}" for n in range(20))
    assert len(await recorded()) == 20


async def test_what_is_written_is_read_in_every_way(through):
    operations = [{"op": "create", "item": new(number)} for number in range(1000)]
    reply = await through.post("/v1/items/batch", json={"operations": operations})
    assert reply.status_code == 200, reply.text
    export = await through.get("/v1/exports/items.csv")
    assert export.text.count("\n") == 1001
    page = await through.get("/v1/items?tag=tool&sort=-price&count=exact&limit=5")
    assert page.headers["x-total-count"] == "1000"
    item = page.json()["items"][0]
    one = await through.get(f"/v1/items/{item['id']}")
    change = await through.patch(
        f"/v1/items/{item['id']}", json={"price": "13"}, headers={"If-Match": one.headers["etag"]}
    )
    assert change.status_code == 200, change.text
    assert (await through.get(f"/v1/items/{item['id']}")).json()["price"] == "13.0000"
    assert (await through.get("/health/ready")).json()["status"] == "ok"


async def test_no_setting_of_ours_outlives_its_transaction(through, bouncer):
    """Another who is lent the connection finds it as PostgreSQL made it."""
    await asyncio.gather(*(through.get("/v1/items") for _ in range(10)))
    await through.post("/v1/items", json=new(1))
    stranger = await asyncpg.connect(bouncer.url, statement_cache_size=0)
    try:
        for name in ("statement_timeout", "lock_timeout", "transaction_read_only"):
            async with stranger.transaction():
                assert await stranger.fetchval("SELECT current_setting($1)", name) in {"0", "off"}
        async with stranger.transaction():
            assert await stranger.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
    finally:
        await stranger.close()


async def test_the_same_limits_hold(through):
    database = through.app.state.database
    setting = Compiled(select(func.current_setting(literal("statement_timeout"))))
    assert await database.reads.value(setting) == "15s"
    async with database.sessions() as session:
        assert await session.scalar(select(func.current_setting("lock_timeout"))) == "5s"
    with pytest.raises(asyncpg.PostgresError, match="read-only"):
        await database.reads.value(Compiled(select(func.lo_create(0))))


async def test_a_cancelled_read_lends_its_connection_to_nobody(through):
    reads = through.app.state.database.reads
    slow = [asyncio.create_task(reads.value(Compiled(select(func.pg_sleep(30))))) for _ in range(8)]
    await asyncio.sleep(0.2)
    for read in slow:
        read.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    quick = Compiled(select(literal(7)))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(reads.value(quick) for _ in range(20))) == [7] * 20


@pytest.mark.parametrize("die", [PgBouncer.end, PgBouncer.kill])
async def test_it_is_restarted_under_load(through, bouncer, die):
    answers: Counter[int] = Counter()
    acknowledged = set()
    is_over = asyncio.Event()

    async def go_on(person: int) -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            sku = f"L-{person}-{number}"
            written = await through.post("/v1/items", json={**NEW, "sku": sku})
            read = await through.get("/v1/items")
            answers.update([written.status_code, read.status_code])
            for reply in (written, read):
                assert reply.status_code != 503 or reply.headers["retry-after"]
            if written.status_code == 201:
                acknowledged.add(sku)
            await asyncio.sleep(0.01)

    async def answered(count: int) -> None:
        enough = answers[201] + count
        async with asyncio.timeout(10):
            while answers[201] < enough:  # noqa: ASYNC110 -- no Event
                await asyncio.sleep(0.01)

    people = [asyncio.create_task(go_on(person)) for person in range(8)]
    await answered(40)
    await asyncio.to_thread(die, bouncer)
    assert await asyncio.to_thread(bouncer.has_stopped, 10)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(bouncer.start)
    await answered(40)
    is_over.set()
    await asyncio.gather(*people)
    assert answers.keys() == {200, 201, 503}
    page = (await through.get("/v1/items?limit=200&q=L-")).json()
    stored = {item["sku"] for item in page["items"]}
    while page["next_cursor"]:
        page = (await through.get(f"/v1/items?limit=200&q=L-&cursor={page['next_cursor']}")).json()
        stored |= {item["sku"] for item in page["items"]}
    assert acknowledged <= stored


def test_the_schema_is_changed_only_past_it(settings, pooled):
    pooler = settings.database.model_copy(update=pooled["database"])
    behind = settings.model_copy(update=pooled | {"database": pooler})
    with pytest.raises(DatabaseAwayError, match="set PRICEBOOK_DATABASE_DIRECT_URL"):
        migrate(behind)
    said = []
    migrate(behind.model_copy(update={"database_direct_url": settings.database_url}), said.append)
    assert said == [f"The schema is at {needed_head()}."]
