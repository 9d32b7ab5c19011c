"""Signatures, judged by a library that nobody here wrote."""

import base64
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update
from standardwebhooks import Webhook, WebhookVerificationError
from tests.conftest import until

from pricebook.core.sealing import Sealer
from pricebook.webhooks.models import WebhookEndpoint
from pricebook.webhooks.service import tend_secrets
from pricebook.webhooks.signing import new_secret

NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")


def flipped(given: bytes) -> Iterator[bytes]:
    """Yield every way to change one bit."""
    for place in range(8 * len(given)):
        changed = bytearray(given)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def is_believed(secret, body, headers) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except (WebhookVerificationError, ValueError):
        return False
    return True


@pytest.fixture
async def tell(listener, happen, run_worker):
    """Let something happen, and return what the receiver was told of it."""
    worker = run_worker()

    async def tell():
        before = len(listener.told)
        await happen()
        worker.wake()
        await until(lambda: len(listener.told) > before)
        return listener.told[-1]

    return tell


async def test_promise_14_an_independent_library_believes_it_and_no_changed_bit(
    make_endpoint, tell
):
    secret = (await make_endpoint()).secret
    told = await tell()
    headers = {name: told.headers[name] for name in NAMES}
    assert is_believed(secret, told.body, headers)
    for body in flipped(told.body):
        assert not is_believed(secret, body, headers)
    for name in ("webhook-id", "webhook-timestamp"):
        for value in flipped(headers[name].encode()):
            changed = {**headers, name: value.decode("latin-1")}
            assert not is_believed(secret, told.body, changed)
    version, _, signature = headers["webhook-signature"].partition(",")
    for value in flipped(base64.b64decode(signature)):
        changed = {**headers, "webhook-signature": f"{version},{base64.b64encode(value).decode()}"}
        assert not is_believed(secret, told.body, changed)
    assert not is_believed(new_secret().get_secret_value(), told.body, headers)


async def test_promise_14_for_a_day_a_rotated_secret_signs_beside_its_successor(
    make_endpoint, tell, session, api, admin
):
    endpoint = await make_endpoint()
    reply = await api.as_(admin).post(f"/v1/webhooks/{endpoint.id}/rotate-secret")
    assert reply.status_code == 200
    new = reply.json()["secret"]
    told = await tell()
    assert len(told.headers["webhook-signature"].split(" ")) == 2
    assert is_believed(endpoint.secret, told.body, told.headers)
    assert is_believed(new, told.body, told.headers)

    left = await session.scalar(select(WebhookEndpoint.old_secret_until - func.now()))
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    await session.execute(update(WebhookEndpoint).values(old_secret_until=func.now()))
    await session.commit()
    told = await tell()
    assert len(told.headers["webhook-signature"].split(" ")) == 1
    assert not is_believed(endpoint.secret, told.body, told.headers)
    assert is_believed(new, told.body, told.headers)


async def test_the_timestamp_is_the_attempts_and_the_id_the_events(
    listener, make_endpoint, tell, recorded
):
    await make_endpoint()
    told = await tell()
    (event,) = await recorded()
    assert told.headers["webhook-id"] == str(event.id)
    assert abs(int(told.headers["webhook-timestamp"]) - event.occurred_at.timestamp()) < 10


def test_a_secret_is_256_bits_in_the_form_that_libraries_take():
    secret = new_secret().get_secret_value()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret().get_secret_value()


async def test_secrets_lie_sealed_and_are_sealed_anew_when_the_key_is_rotated(
    make_endpoint, session, webhook_settings, tell, database
):
    endpoint = await make_endpoint()
    sealed = (await session.get_one(WebhookEndpoint, endpoint.id)).sealed_secret
    assert endpoint.secret.encode() not in sealed
    old_key = webhook_settings.secret_key.get_secret_value()
    new_key = "the next key, which is as long as it must be"
    both, new = (
        Sealer(webhook_settings.model_copy(update={"secret_key": SecretStr(keys)}))
        for keys in (f"{new_key},{old_key}", new_key)
    )

    async def tend(sealer):
        async with database.sessions.begin() as fresh:
            return await tend_secrets(fresh, sealer)

    assert await tend(new) == 0  # it cannot be read: it is left as it is
    assert await tend(both) == 1
    assert await tend(both) == 0
    await session.refresh(await session.get_one(WebhookEndpoint, endpoint.id))
    sealed = (await session.get_one(WebhookEndpoint, endpoint.id)).sealed_secret
    assert new.open(sealed).get_secret_value() == endpoint.secret


async def test_an_old_secret_is_forgotten_when_it_signs_no_more(
    make_endpoint, session, sealer, database, state_of
):
    sealed = sealer.seal(new_secret())
    over = await make_endpoint(old_sealed_secret=sealed, old_secret_until=func.now())
    still = await make_endpoint(
        old_sealed_secret=sealed, old_secret_until=func.now() + timedelta(hours=1)
    )
    async with database.sessions.begin() as fresh:
        assert await tend_secrets(fresh, sealer) == 1
    assert (await state_of(over)).old_sealed_secret is None
    assert (await state_of(still)).old_sealed_secret is not None
