"""From a changed price to a mail in somebody's box, through the real dispatcher and SMTP."""

from tests.notifications.conftest import until

from pricebook.core.deliveries import Status
from pricebook.notifications.models import ItemWatch, TagWatch


async def test_a_watched_price_is_mailed(
    viewer, make_item, watch, change_price, work, sink, mails, notifications
):
    item = await make_item(name="Claw hammer", sku="H-1", tags=["tools"])
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "13.75")
    work()

    async def is_delivered():
        return [mail.status for mail in await mails()] == [Status.DELIVERED]

    await until(is_delivered)
    (message,) = sink.accepted
    assert message["To"] == viewer.email
    assert message["Subject"] == "Claw hammer: 12.50 → 13.75 EUR"
    (notification,) = await notifications()
    assert notification.data["new_price"] == "13.7500"
    print(sink.envelopes[0].content.decode()[:900])
