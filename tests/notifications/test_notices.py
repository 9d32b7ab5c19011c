"""Mail and inbox about people's own accounts and webhooks."""

from uuid import uuid4

import pytest
from sqlalchemy import func

from pricebook.core.outbox import record
from pricebook.users.events import (
    EmailVerificationRequested,
    PasswordResetRequested,
    UserCreated,
    UserPasswordChanged,
    UserUpdated,
)
from pricebook.webhooks.events import WebhookDeliveryDied, WebhookDisabled
from pricebook.webhooks.models import WebhookEndpoint


@pytest.fixture
def happen(session, expand):
    """Record events, and turn them into what follows."""

    async def run(*events):
        for event in events:
            record(session, event)
        await session.commit()
        await expand()

    return run


async def test_a_forgotten_password_is_mailed_about_but_not_to_who_is_shut_out(
    make_user, happen, mails, notifications
):
    user, gone = await make_user(), await make_user(disabled_at=func.now())
    await happen(
        PasswordResetRequested(user_id=user.id),
        PasswordResetRequested(user_id=gone.id),
        PasswordResetRequested(user_id=uuid4()),
    )
    assert [(mail.user_id, mail.kind) for mail in await mails()] == [(user.id, "password_reset")]
    assert await notifications() == []


async def test_a_new_address_is_to_be_proven(make_user, happen, mails):
    new, moved, asking, renamed = [await make_user() for _ in range(4)]
    proven = await make_user(email_verified_at=func.now())
    await happen(
        UserCreated(user_id=new.id, role="viewer"),
        UserUpdated(user_id=moved.id, changed=["name", "email"]),
        EmailVerificationRequested(user_id=moved.id),
        EmailVerificationRequested(user_id=asking.id),
        UserUpdated(user_id=renamed.id, changed=["name"]),
        EmailVerificationRequested(user_id=proven.id),
    )
    found = await mails()
    assert {mail.kind for mail in found} == {"verify_email"}
    assert sorted(mail.user_id for mail in found) == sorted([new.id, moved.id, asking.id])


async def test_a_new_key_and_a_new_password_are_warned_of(
    api, viewer, make_key, happen, mails, notifications
):
    key = await make_key(viewer, "items:read")
    await happen(UserPasswordChanged(user_id=viewer.id))
    by_event = {one.data["event"]: one for one in await notifications()}
    made = by_event["api_key.created"]
    assert (made.user_id, made.kind) == (viewer.id, "security")
    assert made.data["key_name"] == "A till"
    assert made.data["scopes"] == ["items:read"]
    assert set(by_event["user.password_changed"].data) == {"event", "occurred_at"}
    found = await mails()
    assert [mail.kind for mail in found] == ["security", "security"]
    assert {mail.id for mail in found} == {one.mail_id for one in by_event.values()}
    assert key not in str([mail.data for mail in found])


async def test_warnings_are_mailed_even_to_who_muted_all_there_is_to_mute(
    api, viewer, happen, mails, notifications
):
    kinds = {
        "price_changed": {"inbox": False, "email": False},
        "job_finished": {"inbox": False, "email": False},
        "webhook_trouble": {"inbox": False, "email": False},
        "security": {"inbox": False},
    }
    preferences = {"digest": "never", "kinds": kinds}
    await api.as_(viewer).patch("/v1/notifications/preferences", json=preferences)
    await happen(UserPasswordChanged(user_id=viewer.id))
    assert [mail.kind for mail in await mails()] == ["security"]
    assert [one.is_in_inbox for one in await notifications()] == [False]


@pytest.fixture
def make_webhook(session):
    async def make(owner=None, **fields):
        fields.setdefault("url", "https://ann:canary-password@hooks.shop.example.com:8443/canary")
        webhook = WebhookEndpoint(
            owner_id=owner.id if owner else None, sealed_secret=b"sealed", **fields
        )
        session.add(webhook)
        await session.commit()
        return webhook

    return make


async def test_the_owner_hears_of_a_webhook_in_trouble(
    make_user, make_webhook, happen, mails, notifications
):
    owner, _other = await make_user("admin"), await make_user("admin")
    webhook = await make_webhook(owner, description="The shop")
    ids = {"webhook_id": webhook.id, "owner_id": owner.id}
    await happen(
        WebhookDisabled(**ids, reason="gone"), WebhookDeliveryDied(**ids, delivery_id=uuid4())
    )
    assert {mail.user_id for mail in await mails()} == {owner.id}
    first, second = await notifications()
    assert first.kind == second.kind == "webhook_trouble"
    assert first.data["event"] == "webhook.disabled"
    assert first.data["reason"] == "gone"
    assert first.data["host"] == "hooks.shop.example.com:8443"
    assert first.data["description"] == "The shop"
    assert "delivery_id" in second.data
    assert "canary" not in str([first.data, second.data])


@pytest.mark.parametrize("owner", ["nobody", "shut out", "demoted"])
async def test_a_webhook_without_an_acting_owner_is_every_admins_business(
    make_user, make_webhook, happen, mails, owner
):
    admins = [await make_user("admin") for _ in range(2)]
    await make_user("admin", disabled_at=func.now())
    owners = {
        "nobody": None,
        "shut out": await make_user("admin", disabled_at=func.now()),
        "demoted": await make_user("editor"),
    }
    webhook = await make_webhook(owners[owner])
    await happen(
        WebhookDisabled(webhook_id=webhook.id, reason="failing", owner_id=webhook.owner_id)
    )
    assert sorted(mail.user_id for mail in await mails()) == sorted(one.id for one in admins)


async def test_a_webhook_that_is_gone_is_told_of_nevertheless(admin, happen, mails, notifications):
    await happen(WebhookDisabled(webhook_id=uuid4(), reason="failing", owner_id=admin.id))
    (notification,) = await notifications()
    assert "host" not in notification.data
    assert len(await mails()) == 1
