"""Whoever watches prices hears of an import once, however many it changes."""

from decimal import Decimal

from sqlalchemy import func, select
from tests.conftest import until

from pricebook.items.models import Item
from pricebook.notifications.models import ItemWatch, Notification, TagWatch

COUNT = 300


def file_at(price):
    rows = (f"W-{number},Nail {number},{price},EUR,steel\n" for number in range(COUNT))
    return "sku,name,price,currency,tags\n" + "".join(rows)


async def test_many_changed_prices_reach_each_watcher_as_one_mail(
    do_import, make_user, watch, session, expand, work, sink, mails
):
    await do_import(file_at(1))
    by_tag, by_item = await make_user(), await make_user()
    watched = await session.scalar(select(Item.id).where(Item.sku == "W-7"))
    await watch(
        TagWatch(user_id=by_tag.id, tag="steel"), ItemWatch(user_id=by_item.id, item_id=watched)
    )
    job = await do_import(file_at(2))
    assert job.result["price_changes"] == COUNT
    await expand()
    of_all, of_one = await told(session, by_tag), await told(session, by_item)
    assert (of_all, of_one) == (COUNT, 1)
    prices = [mail for mail in await mails() if mail.kind == "price_changes"]
    assert sorted(mail.user_id for mail in prices) == sorted([by_tag.id, by_item.id])
    work()

    def sent():
        return [one for one in sink.accepted if one["To"] in {by_tag.email, by_item.email}]

    await until(lambda: len(sent()) == 2)
    (digest,) = [one for one in sent() if one["To"] == by_tag.email]
    text = digest.get_body(("plain",)).get_content()
    assert "W-0" in text
    assert str(COUNT) in digest["Subject"] + text
    assert (await session.scalars(select(Item.price).distinct())).all() == [Decimal(2)]


async def told(session, user):
    count = select(func.count()).select_from(Notification)
    return await session.scalar(count.where(Notification.user_id == user.id))


async def test_an_import_without_new_prices_tells_nobody(
    do_import, make_user, watch, session, expand
):
    await do_import(file_at(1))
    watcher = await make_user()
    await watch(TagWatch(user_id=watcher.id, tag="steel"))
    await do_import(file_at(1).replace("Nail", "Screw"))
    await expand()
    assert await told(session, watcher) == 0
