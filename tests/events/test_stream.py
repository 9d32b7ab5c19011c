"""The live stream: each event to each reader who may see it, once, in order."""

import asyncio
import random
import re
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg
import pytest
from tests.events.conftest import eventually, price_change, skus, tell

from pricebook.core import streaming
from pricebook.core.database import open_database
from pricebook.core.outbox import record
from pricebook.users.events import UserDisabled


async def test_a_change_is_told_once_it_is_committed(server, api, viewer, editor, make_item):
    item = await make_item(price="12.50", tags=["tools"])
    listener = await server.listen(viewer)
    reply = await api.as_(editor).patch(f"/v1/items/{item.id}", json={"price": "13"})
    assert reply.status_code == 200
    updated, changed = await listener.until_told(2, seconds=1)
    assert [updated["type"], changed["type"]] == ["item.updated", "item.price_changed"]
    assert set(changed) == {"id", "type", "occurred_at", "data"}
    assert changed["data"]["item_id"] == str(item.id)
    assert (changed["data"]["old_price"], changed["data"]["new_price"]) == ("12.5000", "13.0000")
    assert b"event: item.price_changed\n" in listener.body


async def test_the_answer_is_one_that_proxies_and_browsers_leave_alone(server, viewer):
    listener = await server.listen(viewer)
    head = bytes(listener.received.partition(b"\r\n\r\n")[0]).lower()
    for line in (
        b"http/1.1 200 ok",
        b"content-type: text/event-stream",
        b"cache-control: no-store",
        b"x-accel-buffering: no",
        b"x-content-type-options: nosniff",
    ):
        assert line in head
    assert b"retry: " in listener.body


async def test_a_thousand_events_out_of_order_across_16_transactions_are_all_told(
    server, settings, viewer
):
    """Ids are given out before commit, and the last to begin may be the first to end."""
    listener = await server.listen(viewer)
    chance = random.Random(7)
    names = [f"E-{number}" for number in range(1_000)]
    sizes = settings.database.model_copy(update={"pool_size": 16})
    own = settings.model_copy(update={"database": sizes})
    async with open_database(own, "tests") as database, AsyncExitStack() as opened:
        sessions = [await opened.enter_async_context(database.sessions()) for _ in range(16)]
        for number, name in enumerate(names):
            session = chance.choice(sessions)
            tell(session, name)
            await session.flush()
            if number % 20 == 19:
                for one in chance.sample(sessions, 3):
                    await one.commit()
        chance.shuffle(sessions)
        for session in sessions:
            await session.commit()
            await asyncio.sleep(0.01)
    events = await listener.until_told(1_000)
    await asyncio.sleep(0.1)
    assert sorted(skus(listener.events)) == sorted(names)
    assert len({event["id"] for event in events}) == 1_000


async def test_nobody_waits_for_a_long_transaction_and_it_is_told_when_it_ends(
    server, database, viewer, session
):
    listener = await server.listen(viewer)
    async with database.sessions() as long:
        tell(long, "LATE-1", "LATE-2")
        await long.flush()
        tell(session, "A")
        await session.commit()
        assert skus(await listener.until_told(1, seconds=2)) == ["A"]
        resumed = await server.listen(viewer, last_event_id=listener.last_id)
        tell(session, "B")
        await session.commit()
        await long.commit()
    for reader, expected in ((listener, 4), (resumed, 3)):
        told = skus(await reader.until_told(expected))
        assert sorted(told)[-2:] == ["LATE-1", "LATE-2"]
        assert told.index("LATE-2") == told.index("LATE-1") + 1
        assert told.count("B") == 1


async def test_what_was_rolled_back_is_never_told(server, session, viewer):
    listener = await server.listen(viewer)
    tell(session, "NEVER")
    await session.flush()
    await session.rollback()
    tell(session, "A")
    await session.commit()
    assert skus(await listener.until_told(1)) == ["A"]


async def test_from_any_id_on_comes_exactly_the_rest(server, session, database, viewer):
    """By header and by query, of a reader that was live and of one that caught up."""
    first = await server.listen(viewer)
    start = first.last_id
    async with database.sessions() as other:
        for number in range(6):
            tell(other, f"X-{number}")
            await other.flush()
            tell(session, f"Y-{number}", f"Z-{number}")
            await session.commit()
            if number % 2:
                await other.commit()
            await asyncio.sleep(0.03)
    told = skus(await first.until_told(18))
    second = await server.listen(viewer, last_event_id=start)
    caught_up = skus(await second.until_told(18))
    assert sorted(caught_up) == sorted(told)
    for reader, whole in ((first, told), (second, caught_up)):
        for number, place in enumerate(reader.ids):
            for query, header in (("", place), (f"?last_event_id={place}", None)):
                resumed = await server.listen(viewer, query, header)
                assert sorted(skus(resumed.events)) == sorted(whole[number + 1 :])
                resumed.close()


async def test_what_was_missed_comes_in_pages_and_runs_into_what_is_live(
    server, session, viewer, monkeypatch
):
    monkeypatch.setattr("pricebook.events.service._PAGE", 7)
    place = (await server.listen(viewer)).last_id
    names = [f"E-{number:03}" for number in range(100)]
    tell(session, *names[:60])
    await session.commit()
    opening = asyncio.create_task(server.listen(viewer, last_event_id=place))
    for name in names[60:]:
        tell(session, name)
        await session.commit()
    events = await (await opening).until_told(100)
    assert skus(events) == names


async def test_a_reader_goes_on_though_the_server_lost_its_connections(server, viewer, settings):
    listener = await server.listen(viewer)
    connection = await asyncpg.connect(_plain(settings))
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
    await connection.execute(f"{cut} AND datname = current_database()")
    await connection.close()
    async with open_database(settings, "tests") as database, database.sessions() as session:
        tell(session, "A")
        await session.commit()
    assert skus(await listener.until_told(1)) == ["A"]


def _plain(settings) -> str:
    return settings.database_url.get_secret_value().replace("+asyncpg", "")


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "resumed"])
async def test_a_reader_hears_what_it_asked_for(server, session, viewer, is_live):
    item_id, other_id = uuid4(), uuid4()
    place = (await server.listen(viewer)).last_id
    wanted = {
        "?type=item.price_changed&type=item.deleted": ["A", "B", "C", "END"],
        "?type=item.deleted": [],
        "?tag=tools": ["A", "B"],
        "?tag=garden&tag=steel": ["B"],
        f"?item={item_id}": ["A"],
        f"?item={item_id}&item={other_id}&tag=steel": ["B"],
        "": ["A", "B", "C", "END"],
    }
    listeners = {}
    if is_live:
        listeners = {query: await server.listen(viewer, query) for query in wanted}
    record(session, price_change("A", ["tools"], item_id))
    record(session, price_change("B", ["tools", "steel"], other_id))
    record(session, price_change("C"))
    tell(session, "END")
    await session.commit()
    await (await server.listen(viewer, last_event_id=place)).until_told(4)
    if not is_live:
        listeners = {query: await server.listen(viewer, query, place) for query in wanted}
    for query, expected in wanted.items():
        assert skus(await listeners[query].until_told(len(expected))) == expected, query
    await asyncio.sleep(0.1)
    assert [skus(one.events) for one in listeners.values()] == list(wanted.values())


async def test_viewers_and_editors_hear_of_items_and_admins_of_all(
    server, api, session, viewer, editor, admin, make_user, make_item
):
    stranger = await make_user("viewer")
    item = await make_item()
    readers = {user.role: await server.listen(user) for user in (viewer, editor, admin)}
    place = readers["admin"].last_id
    await api.as_(admin).patch(f"/v1/users/{stranger.id}", json={"disabled": True})
    await api.as_(editor).patch(f"/v1/items/{item.id}", json={"cost": "1.25", "notes": "canary"})
    readers |= {
        f"{user.role} resumed": await server.listen(user, last_event_id=place)
        for user in (viewer, editor, admin)
    }
    for name, reader in readers.items():
        await reader.until(lambda one: b"item.updated" in one.received)
        types = [event["type"] for event in reader.events]
        told = reader.events[-1]
        assert told["data"]["changed"] == ["cost", "notes"]
        assert b"canary" not in reader.received
        if name.startswith("admin"):
            assert types[-1] == "item.updated"
            assert "user.disabled" in types
            assert told["actor_id"] == str(editor.id)
        else:
            assert types == ["item.updated"]
            assert "actor_id" not in told


async def test_what_a_reader_may_not_hear_of_is_refused_before_the_stream_begins(
    server, viewer, admin
):
    assert (await server.listen(viewer, "?type=user.disabled")).status == 403
    assert (await server.listen(admin, "?type=user.disabled")).status == 200
    for query, pointer in {
        "?type=item.exploded": "query/type/0",
        "?type=item.created&type=x": "query/type/1",
        "?item=7": "query/item/0",
        "?tag=": "query/tag/0",
        "?last_event_id=x": "query/last_event_id",
        "?unknown=1": "query/unknown",
    }.items():
        refused = await server.listen(admin, query)
        await refused.until(lambda one: b'"errors"' in one.received)
        assert refused.status == 422
        assert f'"{pointer}"'.encode() in refused.body
    refused = await server.listen(viewer, last_event_id="nonsense")
    await refused.until(lambda one: b'"errors"' in one.received)
    assert b'"header/last-event-id"' in refused.body


async def test_the_header_goes_before_the_query(server, session, viewer):
    """A browser repeats the URL it was given, and sends where it is by header."""
    listener = await server.listen(viewer)
    start = listener.last_id
    tell(session, "A", "B")
    await session.commit()
    await listener.until_told(2)
    resumed = await server.listen(viewer, f"?last_event_id={start}", listener.ids[0])
    assert skus(resumed.events) == ["B"]


async def test_a_place_that_is_no_longer_kept_is_said_so(server, session, viewer, recorded):
    tell(session, "GONE-1", "GONE-2", "KEPT")
    await session.commit()
    listener = await server.listen(viewer)
    tell(session, "A")
    await session.commit()
    await listener.until_told(1)
    for place in ("3.", listener.ids[0]):
        resumed = await server.listen(viewer, last_event_id=place)
        told = b"event: log.truncated\ndata: {}\n\n" in resumed.body
        assert told == (place == "3.")
    beyond = await server.listen(viewer, last_event_id=f"{2**40}.")
    assert b"event: log.truncated\n" in beyond.body
    assert beyond.events == []
    tell(session, "B")
    await session.commit()
    assert skus(await beyond.until_told(1)) == ["B"]


async def test_a_quiet_stream_shows_that_it_lives_and_moves_its_place(
    server, session, viewer, monkeypatch
):
    monkeypatch.setattr(streaming, "_BEAT_SECONDS", 0.05)
    listener = await server.listen(viewer, "?type=item.deleted")
    first = listener.last_id
    tell(session, "A")
    await session.commit()
    await listener.until(lambda one: one.last_id != first)
    assert listener.events == []
    resumed = await server.listen(viewer, last_event_id=listener.last_id)
    assert resumed.events == []


async def test_nobody_listening_means_nothing_is_read(server, database, viewer, session):
    follower = server.app.state.follower
    assert follower.place is None
    listener = await server.listen(viewer)
    assert follower.place is not None
    listener.close()
    await eventually(lambda: follower.place is None)
    record(session, UserDisabled(user_id=uuid4()))
    await session.commit()
    follower.wake()
    again = await server.listen(viewer)
    assert again.events == []


async def test_a_sign_of_life_never_takes_a_reader_back(server, session, viewer, monkeypatch):
    """What it says of the place lies behind all that waits before it."""
    monkeypatch.setattr(streaming, "_BEAT_SECONDS", -1.0)
    listener = await server.listen(viewer)
    for number in range(60):
        tell(session, f"E-{number}")
        await session.commit()
        await asyncio.sleep(0.02)
    await listener.until_told(60)
    found = re.findall(rb"id: [0-9a-f]{8}-([0-9]+)\.", listener.received)
    assert [*map(int, found)] == sorted(map(int, found))
    assert len(found) > 61
