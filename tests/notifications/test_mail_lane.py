"""Mail through the real dispatcher and a real SMTP server: sent, tried again, or given up."""

import asyncio
from email import message_from_bytes, policy

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from tests.conftest import until
from tests.notifications.conftest import mail_to
from tests.sink import Sink, serving

from pricebook.auth.models import OneTimeToken
from pricebook.core.deliveries import Status
from pricebook.core.outbox import record
from pricebook.notifications.models import ItemWatch, Mail
from pricebook.tables import metadata
from pricebook.users.events import PasswordResetRequested, UserPasswordChanged
from pricebook.users.models import User


@pytest.fixture
def ask_for_reset(session):
    async def ask(user):
        record(session, PasswordResetRequested(user_id=user.id))
        await session.commit()

    return ask


@pytest.fixture
def settled(mails):
    """Wait until no mail is pending, and return them all."""

    async def wait():
        async def is_done():
            found = await mails()
            return found and all(mail.status != Status.PENDING for mail in found)

        await until(is_done)
        return await mails()

    return wait


async def test_a_watched_price_is_mailed(
    viewer, make_item, watch, change_price, work, sink, settled, notifications
):
    item = await make_item(name="Claw hammer", sku="H-1", tags=["tools"])
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "13.75")
    work()
    (mail,) = await settled()
    (message,) = sink.accepted
    assert message["To"] == viewer.email
    assert message["Subject"] == "Claw hammer: 12.50 → 13.75 EUR"
    assert message["Message-ID"] == f"<{mail.id}@localhost>"
    assert "+10.0 %" in message.get_body(("plain",)).get_content()
    (notification,) = await notifications()
    assert notification.mail_id == mail.id


async def test_what_the_server_refuses_for_now_is_tried_again_under_the_same_message_id(
    viewer, ask_for_reset, work, sink, settled
):
    sink.replies += ["451 later", "421 busy"]
    await ask_for_reset(viewer)
    work()
    (mail,) = await settled()
    assert (mail.status, mail.attempts) == (Status.DELIVERED, 3)
    assert mail.last_error is None
    assert len(sink.attempts) == 3
    assert {message["Message-ID"] for message in sink.attempts} == {f"<{mail.id}@localhost>"}


async def test_what_the_server_refuses_for_good_is_dead(viewer, ask_for_reset, work, sink, settled):
    sink.replies.append("550 no such mailbox")
    await ask_for_reset(viewer)
    work()
    (mail,) = await settled()
    assert (mail.status, mail.attempts) == (Status.DEAD, 1)
    assert mail.last_error == "550 no such mailbox"
    assert len(sink.attempts) == 1


async def test_what_is_refused_again_and_again_is_dead_in_the_end(
    viewer, ask_for_reset, work, sink, settled
):
    sink.replies += ["451 later"] * 9
    await ask_for_reset(viewer)
    work()
    (mail,) = await settled()
    assert (mail.status, mail.attempts, mail.last_error) == (Status.DEAD, 3, "451 later")


async def test_a_server_that_hangs_is_left_and_tried_again(
    viewer, ask_for_reset, work, sink, settled, mail_settings
):
    sink.replies.append(30.0)
    await ask_for_reset(viewer)
    work(mail_to(mail_settings, timeout_seconds=0.3))
    (mail,) = await settled()
    assert (mail.status, mail.attempts) == (Status.DELIVERED, 2)
    first, second = sink.attempts
    assert first["Message-ID"] == second["Message-ID"]


async def test_a_server_that_is_down_is_awaited(
    viewer, ask_for_reset, work, sink, mails, mail_settings, settled
):
    async with serving(Sink()) as gone:
        url = gone.url
    await ask_for_reset(viewer)
    without = work(mail_to(mail_settings, url=SecretStr(url), retry_delays_seconds=(0.1,) * 50))

    async def is_tried():
        return any(mail.attempts for mail in await mails())

    await until(is_tried)
    without.stop()
    work()
    assert [mail.status for mail in await settled()] == [Status.DELIVERED]


async def test_without_a_mail_server_mail_waits_and_is_sent_once_there_is_one(
    viewer, ask_for_reset, work, sink, mails, mail_settings, settled, capsys
):
    await ask_for_reset(viewer)
    without = work(mail_to(mail_settings, url=None))
    assert capsys.readouterr().out.count("mail waits") == 1

    async def is_expanded():
        return len(await mails()) == 1

    await until(is_expanded)
    await asyncio.sleep(0.3)
    assert [(mail.status, mail.attempts) for mail in await mails()] == [(Status.PENDING, 0)]
    without.stop()
    work()
    assert [mail.status for mail in await settled()] == [Status.DELIVERED]


async def test_mail_goes_to_a_folder_too(
    viewer, ask_for_reset, work, mail_settings, settled, tmp_path
):
    await ask_for_reset(viewer)
    work(mail_to(mail_settings, url=SecretStr(tmp_path.as_uri())))
    await settled()
    (file,) = tmp_path.iterdir()
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert message["To"] == viewer.email


async def test_each_attempt_carries_a_token_of_its_own_which_lies_nowhere_else(
    viewer, ask_for_reset, work, sink, settled, session, capsys
):
    sink.replies.append("451 later")
    await ask_for_reset(viewer)
    work()
    await settled()
    links = [
        line
        for message in sink.attempts
        for line in message.get_body(("plain",)).get_content().splitlines()
        if "#token=" in line
    ]
    tokens = [link.partition("#token=")[2] for link in links]
    assert len(set(tokens)) == 2
    assert links[0].startswith("http://127.0.0.1:8000/reset-password#token=")
    assert await session.scalar(select(func.count()).select_from(OneTimeToken)) == 2
    written = "".join(capsys.readouterr())
    for table in metadata.sorted_tables:
        rows = await session.execute(text(f"SELECT to_jsonb(t)::text FROM {table.name} t"))
        written += "".join(rows.scalars())
    assert str(viewer.id) in written
    for token in tokens:
        assert token not in written


async def test_a_token_of_a_mail_sets_a_new_password(
    viewer, ask_for_reset, work, sink, settled, api
):
    await ask_for_reset(viewer)
    work()
    await settled()
    content = sink.accepted[0].get_body(("plain",)).get_content()
    token = content.partition("#token=")[2].split()[0]
    new = {"token": token, "new_password": "forty nails and a hammer"}
    reply = await api.post("/v1/auth/password-reset/confirm", json=new)
    assert reply.status_code == 204, reply.text


async def test_who_is_shut_out_meanwhile_gets_no_mail_but_warnings(
    viewer, make_item, watch, change_price, ask_for_reset, session, expand, work, sink, settled
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "1")
    await ask_for_reset(viewer)
    record(session, UserPasswordChanged(user_id=viewer.id))
    await session.commit()
    await expand()
    await session.execute(update(User).where(User.id == viewer.id).values(disabled_at=func.now()))
    await session.commit()
    work()
    found = {mail.kind: (mail.status, mail.last_error) for mail in await settled()}
    assert found["security"] == (Status.DELIVERED, None)
    unsent = (Status.DEAD, "not sent: the user is disabled")
    assert found["price_changes"] == found["password_reset"] == unsent
    assert [message["Subject"] for message in sink.accepted] == ["Your password was changed"]


async def test_an_address_that_is_verified_by_then_needs_no_proof(
    make_user, session, work, sink, settled
):
    user = await make_user(email_verified_at=func.now())
    session.add(Mail(user_id=user.id, kind="verify_email"))
    await session.commit()
    work()
    (mail,) = await settled()
    assert mail.last_error == "not sent: the address is verified already"
    assert sink.attempts == []


async def test_what_one_subscribed_to_can_be_unsubscribed_from(
    viewer, make_item, watch, change_price, session, work, sink, settled
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "1")
    record(session, UserPasswordChanged(user_id=viewer.id))
    await session.commit()
    work()
    await settled()
    found = {message["Subject"]: message for message in sink.accepted}
    warning = found.pop("Your password was changed")
    assert "List-Unsubscribe" not in warning
    (about_prices,) = found.values()
    raw = next(one.content.decode() for one in sink.envelopes if b"12.50" in one.content)
    assert "\r\nList-Unsubscribe: <http://127.0.0.1:8000/v1/notifications/unsubscribe?token=" in raw
    assert about_prices["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_without_a_secret_key_there_is_no_way_out_to_offer(
    viewer, make_item, watch, change_price, work, mail_settings, sink, settled
):
    item = await make_item()
    await watch(ItemWatch(user_id=viewer.id, item_id=item.id))
    await change_price(item, "1")
    work(mail_settings.model_copy(update={"secret_key": None}))
    await settled()
    assert "List-Unsubscribe" not in sink.accepted[0]


async def test_two_workers_send_each_mail_once(make_user, ask_for_reset, work, sink, settled):
    users = [await make_user() for _ in range(20)]
    for user in users:
        await ask_for_reset(user)
    work()
    work()
    await settled()
    assert sorted(message["To"] for message in sink.accepted) == sorted(one.email for one in users)
