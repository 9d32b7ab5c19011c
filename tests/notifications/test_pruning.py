"""What is old goes, in batches; what is not delivered yet stays, however old."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import func, insert, literal, select

from pricebook.core.settings import RetentionSettings
from pricebook.housekeeping import pruners
from pricebook.notifications import service
from pricebook.notifications.models import Mail, Notification


def ago(days):
    return func.now() - timedelta(days=days)


async def test_old_notifications_go_and_those_that_a_mail_has_yet_to_tell_stay(
    session, viewer, notifications
):
    pending = Mail(user_id=viewer.id, kind="price_changes", created_at=ago(91))
    sent = Mail(user_id=viewer.id, kind="price_changes", status="delivered", settled_at=ago(91))
    session.add_all([pending, sent])
    await session.flush()
    made = {
        name: Notification(
            user_id=viewer.id, kind="price_changed", event_id=uuid4(), data={}, is_in_inbox=True,
            created_at=ago(days), mail_id=mail_id,
        )
        for name, days, mail_id in (
            ("young", 89, None), ("old", 91, None), ("told", 91, sent.id), ("due", 91, pending.id)
        )
    }  # fmt: skip
    session.add_all(made.values())
    await session.commit()
    assert await service.prune_notifications(session, days=90) == 2
    assert await service.prune_notifications(session, days=90) == 0
    await session.commit()
    left = {one.id for one in await notifications()}
    assert left == {made["young"].id, made["due"].id}


async def test_old_mails_go_once_they_are_settled(session, viewer, mails):
    made = {
        name: Mail(user_id=viewer.id, kind="security", status=status, settled_at=settled_at)
        for name, status, settled_at in (
            ("young", "delivered", ago(29)), ("sent", "delivered", ago(31)),
            ("dead", "dead", ago(31)), ("due", "pending", None),
        )
    }  # fmt: skip
    for mail in made.values():
        mail.created_at = ago(40)
    session.add_all(made.values())
    await session.commit()
    assert await service.prune_mails(session, days=30) == 2
    await session.commit()
    assert {mail.id for mail in await mails()} == {made["young"].id, made["due"].id}


async def test_a_mail_that_goes_leaves_the_inbox_alone(session, viewer, notifications):
    mail = Mail(user_id=viewer.id, kind="security", status="delivered", settled_at=ago(31))
    session.add(mail)
    await session.flush()
    session.add(
        Notification(
            user_id=viewer.id, kind="security", event_id=uuid4(), data={}, is_in_inbox=True,
            mail_id=mail.id,
        )
    )  # fmt: skip
    await session.commit()
    assert await service.prune_mails(session, days=30) == 1
    await session.commit()
    assert [one.mail_id for one in await notifications()] == [None]


async def test_a_call_deletes_a_thousand_at_most(session, viewer):
    count = func.generate_series(1, 1_500).table_valued("number")
    rows = select(literal(viewer.id), literal("security"), literal("dead"), ago(31)).select_from(
        count
    )
    await session.execute(
        insert(Mail).from_select(["user_id", "kind", "status", "settled_at"], rows)
    )
    await session.commit()
    found = [await service.prune_mails(session, days=30) for _ in range(3)]
    assert found == [1_000, 500, 0]


def test_the_worker_prunes_both():
    chosen = {
        pruner.func: pruner.keywords
        for pruner in pruners(RetentionSettings(deliveries_days=7, notifications_days=8))
        if hasattr(pruner, "func")
    }
    assert chosen[service.prune_mails] == {"days": 7}
    assert chosen[service.prune_notifications] == {"days": 8}
