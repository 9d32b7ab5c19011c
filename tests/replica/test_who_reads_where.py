"""Who reads from a replica, and who may not: whoever may have written reads what is current."""

import pytest
from tests.conftest import until
from tests.replica.conftest import HAMMER

READERS = ("viewer", "items:read")
WRITERS = ("editor", "admin", "items:write")


async def made(till, **fields):
    reply = await till.as_("editor").post("/v1/items", json=HAMMER | fields)
    assert reply.status_code == 201, reply.text
    return reply.json()["id"]


async def test_who_cannot_have_written_reads_from_the_replica(till):
    item_id = await made(till)
    reader = till.as_("viewer")
    await until(lambda: _is_there(reader, item_id))
    for name in READERS:
        for path in (
            f"/v1/items/{item_id}",
            f"/v1/items/{item_id}/name",
            "/v1/items/by-sku/HAM-1",
            "/v1/items?count=exact",
            "/v1/items/suggest?q=ham",
            "/v1/events",
            "/v1/exports/items.csv",
        ):
            reply, source = await till.as_(name).reads(path)
            assert (reply.status_code, source) == (200, "replica"), path
    for path in ("/v1/items/public", f"/v1/items/{item_id}/public"):
        assert (await till.reads(path))[1] == "replica"


async def _is_there(reader, item_id):
    return (await reader.get(f"/v1/items/{item_id}")).status_code == 200


async def test_a_lagging_replica_shows_others_what_was_and_writers_what_is(till, standby):
    item_id = await made(till)
    await until(lambda: _is_there(till.as_("viewer"), item_id))
    standby.delay("1min")
    path = f"/v1/items/{item_id}"
    for number in range(1, 4):
        price = f"{number}.0000"
        reply = await till.as_("editor").patch(path, json={"price": price})
        known = {"If-None-Match": f'"{number}"'}
        for name in WRITERS:
            read, source = await till.as_(name).reads(path, headers=known)
            assert source == "may_write"
            assert (read.status_code, read.json()["price"]) == (200, price)
        for name in READERS:
            read, source = await till.as_(name).reads(path)
            assert (read.json()["price"], source) == ("12.5000", "replica")
        assert (
            await till.as_("viewer").get(path, headers={"If-None-Match": '"1"'})
        ).status_code == 304
        stale = await till.as_("editor").patch(
            path, json={"price": "9"}, headers={"If-Match": '"1"'}
        )
        assert stale.status_code == 412
        assert reply.headers["etag"] == f'"{number + 1}"'


async def test_whoever_asks_for_what_is_current_gets_it(till, standby):
    standby.delay("1min")
    item_id = await made(till)
    path = f"/v1/items/{item_id}"
    assert (await till.as_("viewer").get(path)).status_code == 404
    for name in READERS:
        reply, source = await till.as_(name).reads(path, headers={"Cache-Control": "no-cache"})
        assert (reply.status_code, source) == (200, "no_cache")
    token = {"Authorization": f"Bearer {till.tokens['editor']}"}
    reply, source = await till.reads(f"{path}/public", headers=token)
    assert (reply.status_code, source) == (200, "may_write")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/me",
        "/v1/auth/sessions",
        "/v1/api-keys",
        "/v1/jobs",
        "/v1/notifications",
        "/v1/notifications/preferences",
        "/v1/events?sort=occurred_at",
    ],
)
async def test_what_is_ones_own_or_needs_the_primarys_snapshots_is_read_there(path, till):
    reply, _ = await till.as_("viewer").reads(path)
    before = till.replica.counts.replica
    assert reply.status_code == 200
    assert till.replica.counts.replica == before
    assert (await till.as_("viewer").reads(path))[1] == "primary"


async def test_a_late_replica_is_not_read_and_comes_back_by_itself(both, serve, standby):
    hasty = await serve(both.model_copy(update={"replica": type(both.replica)(max_lag_seconds=1)}))
    await hasty.is_followed()
    standby.delay("1min")
    item_id = await made(hasty)
    await until(lambda: hasty.replica.is_late)
    reply, source = await hasty.as_("viewer").reads(f"/v1/items/{item_id}")
    assert (reply.status_code, source) == (200, "late")
    assert "late; all is read from the primary" in hasty.replica.in_words()
    standby.delay("0")
    await hasty.is_followed()
    assert (await hasty.as_("viewer").reads(f"/v1/items/{item_id}"))[1] == "replica"


async def test_an_idle_primary_makes_no_replica_late(both, serve, primary):
    hasty = await serve(
        both.model_copy(update={"replica": type(both.replica)(max_lag_seconds=1.5)})
    )
    await hasty.is_followed()
    # The log now ends behind the header of a page that has no record yet.
    primary._sql("SELECT pg_switch_wal();")
    await until(lambda: hasty.replica.lag_seconds < 0.1)
    for _ in range(20):
        await until(lambda: hasty.replica.lag_seconds < 0.1)
        assert not hasty.replica.is_late


async def test_a_process_reads_from_the_primary_until_it_has_seen_the_replica(both, serve, standby):
    standby.stop()
    client = await serve(both)
    reply, source = await client.as_("viewer").reads("/v1/items")
    assert (reply.status_code, source) == (200, "away")


async def test_without_a_replica_there_is_nothing_to_follow(api, viewer):
    assert api.app.state.replica is None
    assert (await api.as_(viewer).get("/v1/items")).status_code == 200
    health = (await api.get("/health/ready")).json()
    assert "replica" not in {part["name"] for part in health["parts"]}
