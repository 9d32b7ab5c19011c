"""`GET /v1/events`: the log in pages, both ways; and how its old end is pruned."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update
from tests.events.conftest import price_change, skus, tell

from pricebook.core.outbox import EventRecord, record
from pricebook.core.settings import RetentionSettings
from pricebook.events import queries
from pricebook.events.position import Place, Position, Span
from pricebook.events.schemas import EventOut
from pricebook.events.service import prune
from pricebook.housekeeping import pruners
from pricebook.users.events import UserDisabled


async def pages(client, **params):
    """Read page by page to the end; return the pages."""
    found, cursor = [], None
    while True:
        given = params | ({"cursor": cursor} if cursor else {})
        reply = await client.get("/v1/events", params=given)
        assert reply.status_code == 200, reply.text
        page = reply.json()
        found.append(page["items"])
        cursor = page["next_cursor"]
        assert ('rel="next"' in reply.headers.get("link", "")) == (cursor is not None)
        if cursor is None:
            return found


async def names(client, **params):
    return [name for page in await pages(client, **params) for name in skus(page)]


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_the_log_is_read_in_pages_both_ways(api, viewer, session, limit):
    for group in ("AB", "C", "DEFG"):
        tell(session, *group)
        await session.commit()
    reader = api.as_(viewer)
    assert "".join(await names(reader, sort="occurred_at", limit=limit)) == "ABCDEFG"
    assert "".join(await names(reader, limit=limit)) == "GFEDCBA"


async def test_what_commits_late_is_on_a_later_page(api, viewer, session, database):
    reader = api.as_(viewer)
    params = {"sort": "occurred_at", "limit": 2}
    async with database.sessions() as late:
        tell(late, "LATE")
        await late.flush()
        tell(session, "A", "B", "C")
        await session.commit()
        first = (await reader.get("/v1/events", params=params)).json()
        await late.commit()
    rest = await reader.get("/v1/events", params=params | {"cursor": first["next_cursor"]})
    assert skus(first["items"]) == ["A", "B"]
    assert sorted(skus(rest.json()["items"])) == ["C", "LATE"]


async def test_an_event_is_written_as_its_model_says(api, admin, viewer, session):
    item_id = uuid4()
    record(session, price_change("A", ["tools"], item_id))
    await session.commit()
    (event,) = (await api.as_(viewer).get("/v1/events")).json()["items"]
    assert set(event) == {"id", "type", "occurred_at", "data"}
    assert event["data"]["item_id"] == str(item_id)
    told = (await api.as_(admin).get("/v1/events")).json()["items"]
    for one in (event, *told):
        assert EventOut.model_validate(one).model_dump(mode="json", exclude_unset=True) == one


async def test_who_reads_what(api, viewer, editor, admin, session):
    record(session, UserDisabled(user_id=uuid4()))
    tell(session, "A")
    await session.commit()
    for reader, expected in ((viewer, 1), (editor, 1), (admin, 2)):
        for sort in ("occurred_at", "-occurred_at"):
            (page,) = await pages(api.as_(reader), sort=sort)
            assert len(page) == expected
            assert all(("actor_id" in event) == (reader is admin) for event in page)
    reply = await api.as_(viewer).get("/v1/events", params={"type": "user.disabled"})
    assert reply.status_code == 403
    assert reply.json()["type"] == "/problems/event-type-hidden"


async def test_the_filters(api, viewer, session):
    item_id = uuid4()
    record(session, price_change("A", ["tools"], item_id))
    record(session, price_change("B", ["steel"]))
    tell(session, "C")
    await session.commit()
    reader = api.as_(viewer)
    for sort in ("occurred_at", "-occurred_at"):
        for params, expected in (
            ({"tag": ["tools", "steel"]}, "AB"),
            ({"item": [str(item_id), str(uuid4())]}, "A"),
            ({"type": "item.price_changed", "tag": "steel"}, "B"),
            ({"type": "item.deleted"}, ""),
        ):
            assert "".join(sorted(await names(reader, sort=sort, limit=1, **params))) == expected


async def test_since(api, viewer, session):
    tell(session, "OLD")
    await session.commit()
    await asyncio.sleep(0.01)
    since = datetime.now(UTC)
    tell(session, "NEW")
    await session.commit()
    for sort in ("occurred_at", "-occurred_at"):
        params = {"sort": sort, "since": since.isoformat()}
        assert await names(api.as_(viewer), **params) == ["NEW"]
        params["since"] = "1970-01-01T00:00:00Z"
        assert sorted(await names(api.as_(viewer), **params)) == ["NEW", "OLD"]


async def test_a_cursor_of_another_order_is_refused(api, viewer, session):
    tell(session, "A", "B")
    await session.commit()
    reader = api.as_(viewer)
    for sort, other in (("occurred_at", "-occurred_at"), ("-occurred_at", "occurred_at")):
        page = (await reader.get("/v1/events", params={"sort": sort, "limit": 1})).json()
        params = {"sort": other, "cursor": page["next_cursor"]}
        reply = await reader.get("/v1/events", params=params)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["pointer"] == "query/cursor"


async def test_each_part_of_the_log_has_its_index(session):
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    await session.execute(text("SELECT 1"))
    await raw.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    values = {"limit": 10, "types": ["item.created"]}
    between = queries.events_between(frozenset({"types"}))
    newest = queries.newest_events(frozenset({"types"}), for_admin=False, is_first=False)
    span = Span(Place(Position(90, (5, 7, 9))), Position(100, (9,))).bounds()
    end = {"before": 100, "before_id": uuid4()}
    for statement, more, scans in ((between, span, 3), (newest, end, 1)):
        arguments = statement.arguments(values | more)
        lines = await raw.fetch(f"EXPLAIN {statement.sql}", *arguments)
        plan = "\n".join(line[0] for line in lines)
        assert plan.count("using ix_events_transaction_id") == scans, plan
        assert plan.count("Index Cond: (") == scans
        # The events of one transaction come in order, but PostgreSQL does not see that.
        assert plan.count("Sort  ") == (1 if scans > 1 else 0)


@pytest.fixture
def age(session):
    """Make events older, and carry them to their receivers."""

    async def make_older(*names, days=91, expanded=True):
        sku = EventRecord.payload["sku"].astext
        changed = update(EventRecord).where(sku.in_(names))
        values = {"occurred_at": func.now() - timedelta(days=days)}
        if expanded:
            values["expanded_at"] = func.now()
        await session.execute(changed.values(values))
        await session.commit()

    return make_older


async def kept(session):
    order = (EventRecord.transaction_id, EventRecord.id)
    rows = await session.scalars(select(EventRecord.payload).order_by(*order))
    return "".join(row["sku"] for row in rows)


async def test_old_events_go_but_for_the_last_which_marks_how_far(session, age):
    tell(session, *"ABCDEF")
    await session.commit()
    await age(*"ABCD")
    await age("E", days=89)
    assert await prune(session, 90) == 3
    assert await kept(session) == "DEF"
    assert await prune(session, 90) == 0


async def test_what_is_not_carried_to_its_receivers_yet_stays_and_all_after_it(session, age):
    tell(session, *"ABCDEF")
    await session.commit()
    await age(*"ABCDEF")
    await age("G", "H")
    values = {"expanded_at": None}
    sku = EventRecord.payload["sku"].astext
    await session.execute(update(EventRecord).where(sku == "D").values(values))
    await session.commit()
    assert await prune(session, 90) == 2
    assert await kept(session) == "CDEF"


async def test_a_log_that_is_all_old_keeps_its_last(session, age):
    tell(session, *"ABC")
    await session.commit()
    await age(*"ABC")
    assert await prune(session, 90) == 2
    assert await prune(session, 90) == 0
    assert await kept(session) == "C"


async def test_it_is_pruned_a_thousand_at_a_time(session, age):
    names = [f"E-{number}" for number in range(2_100)]
    tell(session, *names)
    await session.commit()
    await age(*names)
    assert [await prune(session, 90) for _ in range(4)] == [1_000, 1_000, 99, 0]


async def test_a_reader_whose_place_is_pruned_is_told_and_one_at_the_mark_is_not(
    server, session, viewer, age
):
    start = (await server.listen(viewer)).last_id
    listener = await server.listen(viewer)
    tell(session, *"ABCD")
    await session.commit()
    await listener.until_told(4)
    await age(*"ABC")
    while await prune(session, 90):
        await session.commit()
    for place, is_cut_off, expected in (
        (start, True, ["C", "D"]),
        (listener.ids[1], True, ["C", "D"]),
        (listener.ids[2], False, ["D"]),
        (listener.ids[3], False, []),
    ):
        resumed = await server.listen(viewer, last_event_id=place)
        assert (b"event: log.truncated\n" in resumed.body) == is_cut_off
        assert skus(resumed.events) == expected


async def test_the_housekeeping_prunes_events(session, age):
    tell(session, *"ABC")
    await session.commit()
    await age("A", "B", days=8)
    (pruner,) = (
        one
        for one in pruners(RetentionSettings(events_days=7))
        if getattr(one, "func", one) is prune
    )
    assert await pruner(session) == 1
    await session.commit()
    assert await kept(session) == "BC"
