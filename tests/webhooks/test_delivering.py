"""From an event to a signed POST."""

from standardwebhooks import Webhook
from tests.webhooks.conftest import until

from pricebook.core.deliveries import Status


async def test_an_event_becomes_a_signed_post(
    listener, make_endpoint, happen, run_worker, deliveries, attempts, recorded
):
    endpoint = await make_endpoint()
    await happen()
    run_worker()
    await until(lambda: listener.told)
    (told,) = listener.told
    (event,) = await recorded()
    assert Webhook(endpoint.secret).verify(told.body, told.headers) == {
        "type": "item.price_changed",
        "timestamp": event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "data": event.payload,
    }
    assert told.headers["webhook-id"] == str(event.id)
    assert told.headers["Content-Type"] == "application/json"
    assert told.headers["User-Agent"].startswith("Pricebook/")

    async def is_delivered():
        return [one.status for one in await deliveries()] == [Status.DELIVERED]

    await until(is_delivered)
    (attempt,) = await attempts()
    assert (attempt.status_code, attempt.error, attempt.response_head) == (204, None, None)
