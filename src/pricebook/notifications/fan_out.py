"""From events to those whom they concern: each of these statements is all of a reaction's work.

A notification and the mail that tells it are made at once, and rows in the order of users, so that
of two workers at this each waits for the other at most once.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    Uuid,
    all_,
    and_,
    any_,
    case,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    table,
    text,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import Insert, distinct_on, insert
from sqlalchemy.orm import aliased

from pricebook.auth.events import ApiKeyCreated
from pricebook.auth.models import ApiKey
from pricebook.core.outbox import EventRecord
from pricebook.core.principal import Role
from pricebook.notifications.kinds import (
    GATHERING_TIMES,
    MAILED_AS,
    Channel,
    Digest,
    Kind,
    MailKind,
    switch,
)
from pricebook.notifications.models import (
    ItemWatch,
    Mail,
    Notification,
    NotificationSettings,
    TagWatch,
)
from pricebook.users.events import UserUpdated
from pricebook.users.models import User

_SHOWN_OF_PRICES = (
    "item_id", "sku", "name", "old_price", "new_price", "old_currency", "currency",
)  # fmt: skip

# Of an endpoint's URL only the host is told: the rest may be secret.
_ENDPOINTS = table("webhook_endpoints", column("id"), column("url"), column("description"))
_HOST = r"^https?://(?:[^/?#]*@)?([^/?#]+)"

Told = Select[*tuple[Any, ...]]
"""Rows of `event_id`, `user_id` and `data`."""


def watcher_counts(event_ids: Sequence[UUID]) -> Select[UUID, int]:
    """Select how many each of the events concerns; those that concern nobody are left out."""
    watchers = _watchers(event_ids).subquery()
    counts = select(watchers.c.event_id, func.count()).group_by(watchers.c.event_id)
    return counts.order_by(watchers.c.event_id)


def price_changes(event_ids: Sequence[UUID]) -> Insert:
    """Tell who watches the items, or one of their tags; each has one mail that takes in all."""
    wanted = _wanted_prices(event_ids)
    mails = _gathering(wanted).returning(Mail.id, Mail.user_id).cte("gathering")
    return _notified(Kind.PRICE_CHANGED, wanted, mails, mails.c.user_id == wanted.c.user_id)


def price_mails(event_ids: Sequence[UUID]) -> Insert:
    """Have the mails ready, and locked, that `price_changes` of these events fills."""
    return _gathering(_wanted_prices(event_ids))


def _wanted_prices(event_ids: Sequence[UUID]) -> CTE:
    watchers = _watchers(event_ids).subquery()
    told = (
        select(watchers.c.event_id, watchers.c.user_id, _picked(*_SHOWN_OF_PRICES).label("data"))
        .select_from(watchers)
        .join(EventRecord, EventRecord.id == watchers.c.event_id)
        .join(User, and_(User.id == watchers.c.user_id, User.disabled_at.is_(None)))
    )
    return _wanted(told, Kind.PRICE_CHANGED)


def _gathering(wanted: CTE) -> Insert:
    """Make the mail that gathers changes for each user, or lock the one that there is.

    The update changes nothing, but until it is committed nobody can claim the mail.
    """
    people = (
        select(
            wanted.c.user_id, literal(MailKind.PRICE_CHANGES.value), true(), _due(wanted.c.digest)
        )
        .where(wanted.c.is_by_email)
        .distinct()
        .order_by(wanted.c.user_id)
    )
    mails = insert(Mail).from_select(["user_id", "kind", "is_gathering", "due_at"], people)
    return mails.on_conflict_do_update(
        index_elements=[Mail.user_id],
        index_where=text("is_gathering"),
        set_={"user_id": mails.excluded.user_id},
    )


def _watchers(event_ids: Sequence[UUID]) -> CompoundSelect[UUID, UUID]:
    """Select whom each event concerns, once each."""
    tags = func.jsonb_array_elements_text(EventRecord.payload["tags"])
    tag = tags.table_valued("name").render_derived("tag")
    by_item = (
        select(EventRecord.id.label("event_id"), ItemWatch.user_id)
        .select_from(EventRecord)
        .join(ItemWatch, ItemWatch.item_id == EventRecord.subject_id)
        .where(_among(event_ids))
    )
    by_tag = (
        select(EventRecord.id.label("event_id"), TagWatch.user_id)
        .select_from(EventRecord)
        .join(tag, true())
        .join(TagWatch, TagWatch.tag == tag.c.name)
        .where(_among(event_ids))
    )
    return union(by_item, by_tag)


def _due(digest: ColumnElement[str]) -> ColumnElement[Any]:
    waits = {name.value: func.now() + wait for name, wait in GATHERING_TIMES.items()}
    return case(waits, value=digest, else_=func.now())


def credentials_used(event_ids: Sequence[UUID]) -> Insert:
    """Tell people of a new password or API key of theirs, which may be somebody else's doing."""
    is_key = EventRecord.type == ApiKeyCreated.type
    owner = case(
        (is_key, EventRecord.payload["user_id"].astext.cast(Uuid())), else_=EventRecord.subject_id
    )
    data = _picked("api_key_id", "scopes").concat(
        func.jsonb_build_object("key_name", ApiKey.name, *_happened())
    )
    told = (
        select(
            EventRecord.id.label("event_id"),
            User.id.label("user_id"),
            func.jsonb_strip_nulls(data).label("data"),
        )
        .select_from(EventRecord)
        .join(User, User.id == owner)
        .join(ApiKey, and_(is_key, ApiKey.id == EventRecord.subject_id), isouter=True)
        .where(_among(event_ids))
    )
    return _each_mailed(told, Kind.SECURITY)


def webhook_trouble(event_ids: Sequence[UUID]) -> Insert:
    """Tell the owner of a webhook; if nobody acts as that any more, every acting admin."""
    owner = aliased(User)
    owner_id = EventRecord.payload["owner_id"].astext.cast(Uuid())
    has_owner = exists().where(owner.id == owner_id, *_acts_as_admin(owner))
    host = func.substring(_ENDPOINTS.c.url, _HOST)
    data = _picked("webhook_id", "reason", "delivery_id").concat(
        func.jsonb_build_object("host", host, "description", _ENDPOINTS.c.description, *_happened())
    )
    told = (
        select(
            EventRecord.id.label("event_id"),
            User.id.label("user_id"),
            func.jsonb_strip_nulls(data).label("data"),
        )
        .select_from(EventRecord)
        .join(User, and_(or_(User.id == owner_id, ~has_owner), *_acts_as_admin(User)))
        .join(_ENDPOINTS, _ENDPOINTS.c.id == EventRecord.subject_id, isouter=True)
        .where(_among(event_ids))
    )
    return _each_mailed(told, Kind.WEBHOOK_TROUBLE)


def _acts_as_admin(user: type[User]) -> tuple[ColumnElement[bool], ...]:
    return (user.role == Role.ADMIN, user.disabled_at.is_(None))


def password_resets(event_ids: Sequence[UUID]) -> Insert:
    """Mail those who asked for a new password."""
    return _mailed(MailKind.PASSWORD_RESET, _people(event_ids))


def verifications(event_ids: Sequence[UUID]) -> Insert:
    """Mail those whose address is new, or who ask to have it verified."""
    has_moved = EventRecord.payload["changed"].has_key("email")
    people = _people(event_ids).where(
        User.email_verified_at.is_(None), or_(EventRecord.type != UserUpdated.type, has_moved)
    )
    return _mailed(MailKind.VERIFY_EMAIL, people)


def _people(event_ids: Sequence[UUID]) -> Select[UUID, UUID]:
    """Select the users that the events are about, with the last event of each."""
    return (
        select(User.id.label("user_id"), EventRecord.id.label("event_id"))
        .select_from(EventRecord)
        .join(User, User.id == EventRecord.subject_id)
        .where(_among(event_ids), User.disabled_at.is_(None))
        .ext(distinct_on(User.id))
        .order_by(User.id, EventRecord.id.desc())
    )


def _mailed(kind: MailKind, people: Select[UUID, UUID]) -> Insert:
    chosen = people.subquery()
    return insert(Mail).from_select(
        ["kind", "user_id", "event_id"],
        select(literal(kind.value), chosen.c.user_id, chosen.c.event_id),
    )


def _each_mailed(told: Told, kind: Kind) -> Insert:
    """Make a notification, and a mail of its own, of each row."""
    wanted = _wanted(told, kind)
    mails = (
        insert(Mail)
        .from_select(
            ["user_id", "kind", "event_id", "data"],
            select(
                wanted.c.user_id, literal(MAILED_AS[kind].value), wanted.c.event_id, wanted.c.data
            ).where(wanted.c.is_by_email),
        )
        .returning(Mail.id, Mail.user_id, Mail.event_id)
        .cte("mailed")
    )
    is_same = and_(mails.c.user_id == wanted.c.user_id, mails.c.event_id == wanted.c.event_id)
    return _notified(kind, wanted, mails, is_same)


def _wanted(told: Told, kind: Kind) -> CTE:
    """Add to each row which way its user wants to be told; drop it if no way."""
    rows = told.subquery("told")
    muted = func.coalesce(NotificationSettings.muted, literal([], ARRAY(Text)))
    digest = func.coalesce(NotificationSettings.digest, Digest.AT_ONCE.value)
    is_by_email = literal(switch(kind, Channel.EMAIL)) != all_(muted)
    if kind is Kind.PRICE_CHANGED:
        is_by_email &= digest != Digest.NEVER.value
    chosen = (
        select(
            rows,
            digest.label("digest"),
            (literal(switch(kind, Channel.INBOX)) != all_(muted)).label("is_in_inbox"),
            is_by_email.label("is_by_email"),
        )
        .select_from(rows)
        .join(NotificationSettings, NotificationSettings.user_id == rows.c.user_id, isouter=True)
        .subquery("chosen")
    )
    is_wanted = or_(chosen.c.is_in_inbox, chosen.c.is_by_email)
    return select(chosen).where(is_wanted).cte("wanted")


def _notified(kind: Kind, wanted: CTE, mails: CTE, is_same: ColumnElement[bool]) -> Insert:
    """Insert a notification for each row, with the mail that tells it."""
    rows = (
        select(
            wanted.c.user_id,
            literal(kind.value),
            wanted.c.event_id,
            wanted.c.data,
            wanted.c.is_in_inbox,
            mails.c.id,
        )
        .select_from(wanted)
        .join(mails, and_(wanted.c.is_by_email, is_same), isouter=True)
        .order_by(wanted.c.user_id, wanted.c.event_id)
    )
    columns = ["user_id", "kind", "event_id", "data", "is_in_inbox", "mail_id"]
    return insert(Notification).from_select(columns, rows).on_conflict_do_nothing()


def _among(event_ids: Sequence[UUID]) -> ColumnElement[bool]:
    return EventRecord.id == any_(literal(list(event_ids), ARRAY(Uuid())))


def _picked(*names: str) -> ColumnElement[Any]:
    """Return just these fields of the payload; one that it lacks is null."""
    pairs = [part for name in names for part in (name, EventRecord.payload[name])]
    return func.jsonb_build_object(*pairs)


def _happened() -> tuple[Any, ...]:
    return ("event", EventRecord.type, "occurred_at", EventRecord.occurred_at)
