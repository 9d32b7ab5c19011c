"""Who watches a price hears of its change: once, gathered as they like, and no one else."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, update
from tests.conftest import until
from tests.notifications.conftest import mail_to

from pricebook.core.deliveries import Status
from pricebook.core.expansion import Expander
from pricebook.core.outbox import EventRecord, record
from pricebook.items.events import ItemPriceChanged
from pricebook.notifications import claims, reactions
from pricebook.notifications.lane import MailLane
from pricebook.notifications.models import ItemWatch, Mail, Notification, TagWatch
from pricebook.subscriptions import SUBSCRIPTIONS

INTERNAL_NOTES, INTERNAL_COST = "canary-notes-77", "4321.1234"


@pytest.fixture
def prefer(api):
    """Set someone's preferences over the API."""

    async def change(user, **preferences):
        reply = await api.as_(user).patch("/v1/notifications/preferences", json=preferences)
        assert reply.status_code == 200, reply.text

    return change


@pytest.fixture
async def lane(database, mail_settings):
    return MailLane(mail_settings, database)


@pytest.fixture
def claim(database, lane):
    """Claim what is due, as a worker does."""

    async def take(room=10):
        async with database.sessions.begin() as session:
            return list(await lane.claim(session, [], room))

    return take


async def due_in(session, mail):
    """Return in how many seconds a mail is due."""
    left = select(func.extract("epoch", Mail.due_at - func.clock_timestamp()))
    return float(await session.scalar(left.where(Mail.id == mail.id)))


async def test_watchers_of_the_item_or_of_a_tag_are_told_once_and_nobody_else(
    make_user, make_item, watch, change_price, expand, mails, notifications
):
    item = await make_item(tags=["steel", "tools"])
    by_item, by_tag, by_all, idle = [await make_user() for _ in range(4)]
    await watch(
        ItemWatch(user_id=by_item.id, item_id=item.id),
        TagWatch(user_id=by_tag.id, tag="tools"),
        ItemWatch(user_id=by_all.id, item_id=item.id),
        TagWatch(user_id=by_all.id, tag="tools"),
        TagWatch(user_id=by_all.id, tag="steel"),
        TagWatch(user_id=idle.id, tag="Tools"),
        ItemWatch(user_id=idle.id, item_id=(await make_item(tags=["wood"])).id),
    )
    await change_price(item, "9.99")
    await expand()
    told = [one.user_id for one in await notifications()]
    assert sorted(told) == sorted([by_item.id, by_tag.id, by_all.id])
    assert sorted(mail.user_id for mail in await mails()) == sorted(told)


async def test_people_may_watch_what_they_change_themselves(
    editor, make_item, watch, change_price, expand, notifications
):
    item = await make_item()
    await watch(ItemWatch(user_id=editor.id, item_id=item.id))
    await change_price(item, "9.99")
    await expand()
    assert [one.user_id for one in await notifications()] == [editor.id]


async def test_who_is_shut_out_is_told_nothing(
    make_user, make_item, watch, change_price, expand, mails, notifications
):
    gone = await make_user(disabled_at=func.now())
    item = await make_item()
    await watch(ItemWatch(user_id=gone.id, item_id=item.id))
    await change_price(item, "9.99")
    await expand()
    assert (await notifications(), await mails()) == ([], [])


async def test_a_notification_holds_no_internal_field(
    api, viewer, make_item, watch, change_price, expand, work, sink
):
    item = await make_item(tags=["tools"], cost=INTERNAL_COST, notes=INTERNAL_NOTES)
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "9.99")
    await expand()
    reply = await api.as_(viewer).get("/v1/notifications")
    (entry,) = reply.json()["items"]
    assert entry["kind"] == "price_changed"
    assert entry["data"] == {
        "item_id": str(item.id),
        "sku": item.sku,
        "name": "Hammer",
        "old_price": "12.5000",
        "new_price": "9.9900",
        "old_currency": "EUR",
        "currency": "EUR",
    }
    work()
    await until(lambda: sink.accepted)
    for secret in (INTERNAL_COST, INTERNAL_NOTES):
        assert secret not in reply.text
        assert secret not in sink.envelopes[0].content.decode()


@pytest.mark.parametrize(
    ("digest", "seconds"), [("at_once", 0), ("hourly", 3_600), ("daily", 86_400)]
)
async def test_mail_goes_out_as_often_as_one_likes(
    viewer, make_item, watch, change_price, prefer, expand, mails, session, claim, digest, seconds
):
    await prefer(viewer, digest=digest)
    items = [await make_item() for _ in range(3)]
    await watch(*(ItemWatch(user_id=viewer.id, item_id=item.id) for item in items))
    for item in items:
        await change_price(item, "9.99")
        await expand()
    (mail,) = await mails()
    assert seconds - 30 < await due_in(session, mail) <= seconds
    if seconds:
        assert await claim() == []
        await session.execute(update(Mail).values(due_at=func.now()))
        await session.commit()
    (claimed,) = await claim()
    assert claimed.change_count == len(claimed.changes) == 3


async def test_who_wants_no_mail_finds_it_in_the_inbox(
    make_user, make_item, watch, change_price, prefer, expand, mails, notifications
):
    item = await make_item()
    rare, muted = [await make_user() for _ in range(2)]
    await prefer(rare, digest="never")
    await prefer(muted, kinds={"price_changed": {"email": False}})
    await watch(*(ItemWatch(user_id=one.id, item_id=item.id) for one in (rare, muted)))
    await change_price(item, "9.99")
    await expand()
    assert await mails() == []
    assert [one.is_in_inbox for one in await notifications()] == [True, True]


async def test_who_wants_no_inbox_gets_the_mail(
    api, viewer, make_item, watch, change_price, prefer, expand, work, sink
):
    item = await make_item()
    await prefer(viewer, kinds={"price_changed": {"inbox": False}})
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "9.99")
    work()
    await until(lambda: sink.accepted)
    inbox = (await api.as_(viewer).get("/v1/notifications")).json()
    assert (inbox["items"], inbox["unread_count"]) == ([], 0)


async def test_who_wants_neither_leaves_no_trace(
    viewer, make_item, watch, change_price, prefer, expand, mails, notifications
):
    item = await make_item()
    await prefer(viewer, kinds={"price_changed": {"inbox": False, "email": False}})
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "9.99")
    await expand()
    assert (await notifications(), await mails()) == ([], [])


async def test_a_mail_tells_of_each_item_once_from_its_first_price_to_its_last(
    viewer, make_item, watch, change_price, expand, claim
):
    item, other = await make_item(sku="A"), await make_item(sku="B")
    await watch(*(ItemWatch(user_id=viewer.id, item_id=one.id) for one in (item, other)))
    for price in ("13", "14", "15"):
        await change_price(item, price)
    await change_price(other, "1")
    await expand()
    (claimed,) = await claim()
    found = {change.sku: (change.old_price, change.new_price) for change in claimed.changes}
    assert found == {"A": (12.5, 15), "B": (12.5, 1)}
    assert claimed.change_count == 2


@pytest.fixture
def many_changes(session, viewer, watch):
    """Record that the prices of many items with a tag changed, which the viewer watches."""

    async def make(count):
        await watch(TagWatch(user_id=viewer.id, tag="tools"))
        ids = await session.scalars(
            select(func.uuidv7()).select_from(func.generate_series(1, count))
        )
        for number, item_id in enumerate(ids):
            event = ItemPriceChanged(
                item_id=item_id, sku=f"S{number}", tags=["tools"], name="Nail", old_price="1",
                new_price="2", old_currency="EUR", currency="EUR",
            )  # fmt: skip
            record(session, event)
        await session.commit()

    return make


async def test_an_import_of_many_prices_makes_one_mail(
    many_changes, work, sink, mails, notifications
):
    await many_changes(3_000)
    work()
    await until(lambda: sink.accepted, seconds=30)
    assert len(await mails()) == 1
    assert len(await notifications()) == 3_000
    (message,) = sink.accepted
    assert message["Subject"] == "3,000 prices you watch have changed"
    content = message.get_body(("plain",)).get_content()
    assert content.count("(S") == claims.MOST_CHANGES
    assert "And 2,900 more." in content


async def test_what_cannot_be_expanded_holds_mail_up_for_seconds_only(
    viewer, make_item, watch, change_price, expand, session, claim
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "9.99")
    await expand()
    stuck = insert(EventRecord).values(
        type="item.price_changed", subject_id=item.id, payload={"tags": "no list"}
    )
    await session.execute(stuck)
    await session.commit()
    assert await claim() == []
    await session.execute(update(Mail).values(due_at=func.now() - timedelta(seconds=6)))
    await session.commit()
    assert len(await claim()) == 1


async def test_a_flood_is_gathered(
    viewer, make_item, watch, change_price, expand, session, database, mail_settings, mails
):
    lane = MailLane(mail_to(mail_settings, at_once_per_hour=3), database)
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))

    async def take():
        async with database.sessions.begin() as claiming:
            return len(await lane.claim(claiming, [], 10))

    taken = []
    for price in range(1, 7):
        await change_price(item, str(price))
        await expand()
        taken.append(await take())
    assert taken == [1, 1, 1, 0, 0, 0]
    assert len(await mails()) == 4
    ten_minutes_ago = func.now() - timedelta(minutes=10)
    gathering = update(Mail).where(Mail.is_gathering)
    await session.execute(gathering.values(due_at=ten_minutes_ago))
    await session.commit()
    assert await take() == 1


async def test_what_comes_after_the_claim_goes_into_the_next_mail(
    viewer, make_item, watch, change_price, expand, claim, mails, notifications
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "13")
    await expand()
    (first,) = await claim()
    await change_price(item, "14")
    await expand()
    (second,) = await claim()
    assert first.id != second.id
    assert [one.mail_id for one in await notifications()] == [first.id, second.id]
    assert [change.new_price for change in first.changes] == [13]
    assert [change.new_price for change in second.changes] == [14]


async def test_a_claim_and_an_expansion_at_the_same_moment_lose_nothing(
    viewer, make_item, watch, change_price, expand, claim, notifications, database
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    claimed = []
    done = asyncio.Event()

    async def keep_claiming():
        while not done.is_set():
            claimed.extend(await claim())

    claiming = asyncio.create_task(keep_claiming())
    for price in range(1, 61):
        await change_price(item, str(price))
        await expand()
    done.set()
    await claiming
    claimed += await claim()
    told = await notifications()
    assert len(told) == 60
    for mail in claimed:
        inside = [one for one in told if one.mail_id == mail.id]
        # What the mail says is what names it: nothing slipped in after it was written.
        (change,) = mail.changes
        assert str(change.new_price) == inside[-1].data["new_price"]
        assert str(change.old_price) == inside[0].data["old_price"]
    assert {one.mail_id for one in told} == {mail.id for mail in claimed}
    assert len(claimed) > 10


async def test_an_expansion_that_waits_for_a_claim_opens_a_new_mail(
    viewer, make_item, watch, change_price, expand, lane, database, mails, notifications
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "13")
    await expand()
    async with database.sessions.begin() as claiming:
        (claimed,) = await lane.claim(claiming, [], 10)
        await change_price(item, "14")
        expanding = asyncio.create_task(expand())
        await asyncio.sleep(0.2)
        assert not expanding.done()
    await expanding
    first, second = await mails()
    assert (first.id, first.is_gathering) == (claimed.id, False)
    assert second.is_gathering
    assert [one.mail_id for one in await notifications()] == [first.id, second.id]


async def test_two_expanders_at_once_tell_everyone_once(
    make_user, many_changes, watch, database, mails, notifications
):
    users = [await make_user() for _ in range(10)]
    await watch(*(TagWatch(user_id=user.id, tag="tools") for user in users))
    await many_changes(300)
    expanders = [Expander(database, SUBSCRIPTIONS, 10) for _ in range(4)]

    async def expand_all(expander):
        while await expander.expand():
            pass

    await asyncio.gather(*map(expand_all, expanders))
    told = await notifications()
    assert len(told) == len({(one.user_id, one.event_id) for one in told}) == 11 * 300
    found = await mails()
    assert len(found) == len({mail.user_id for mail in found}) == 11
    by_mail = {mail.id: mail.user_id for mail in found}
    assert all(by_mail[one.mail_id] == one.user_id for one in told)


async def test_a_tag_that_everyone_watches_is_told_of_in_portions(
    make_user, many_changes, watch, monkeypatch, database, mails, notifications
):
    monkeypatch.setattr(reactions, "_MOST_AT_ONCE", 25)
    users = [await make_user() for _ in range(9)]
    await watch(*(TagWatch(user_id=user.id, tag="tools") for user in users))
    await many_changes(20)
    expanders = [Expander(database, SUBSCRIPTIONS, 7) for _ in range(2)]

    async def expand_all(expander):
        while await expander.expand():
            pass

    await asyncio.gather(*map(expand_all, expanders))
    assert len(await mails()) == 10
    told = await notifications()
    assert len({(one.user_id, one.event_id) for one in told}) == len(told) == 200
    assert {one.mail_id for one in told} == {mail.id for mail in await mails()}


async def test_a_change_of_mind_reaches_the_mail_that_is_being_gathered(
    viewer, make_item, watch, change_price, prefer, expand, mails, session, claim
):
    await prefer(viewer, digest="daily")
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "13")
    await expand()
    await prefer(viewer, digest="hourly")
    (mail,) = await mails()
    assert 3_500 < await due_in(session, mail) <= 3_600
    await prefer(viewer, digest="at_once")
    assert len(await claim()) == 1
    await change_price(item, "14")
    await expand()
    await prefer(viewer, digest="never")
    assert [mail.status for mail in await mails() if mail.is_gathering] == []


async def test_a_retry_tells_the_same(
    viewer, make_item, watch, change_price, work, sink, mails, session
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    sink.replies.append("451 later")
    await change_price(item, "13")
    work()
    await until(lambda: sink.attempts)
    await change_price(item, "14")

    async def is_done():
        found = await mails()
        return len(found) == 2 and all(mail.status == Status.DELIVERED for mail in found)

    await until(is_done)
    texts = [message.get_body(("plain",)).get_content() for message in sink.attempts]
    about_first = [text for text in texts if "→ 13.00" in text]
    assert len(about_first) == 2
    assert about_first[0] == about_first[1]
    assert len([text for text in texts if "13.00 EUR → 14.00" in text]) == 1


async def test_a_tag_that_reads_like_sql_is_only_a_tag(
    viewer, make_item, watch, change_price, expand, notifications, session
):
    tag = "'; DROP TABLE items; --%_\\"
    item = await make_item(tags=[tag])
    await watch(TagWatch(user_id=viewer.id, tag=tag))
    await change_price(item, "13")
    await expand()
    assert len(await notifications()) == 1
    assert await session.scalar(select(func.count()).select_from(Notification)) == 1
