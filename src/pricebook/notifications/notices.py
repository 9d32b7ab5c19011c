"""What people must know of their account, jobs and webhooks: a mail of its own for each event."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    and_,
    case,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import Insert, distinct_on, insert
from sqlalchemy.orm import aliased

from pricebook.auth.events import ApiKeyCreated
from pricebook.auth.models import ApiKey
from pricebook.core.outbox import EventRecord
from pricebook.core.principal import Role
from pricebook.jobs.models import Job, Status
from pricebook.notifications.fan_out import Told, among, as_preferred, notifications_of, picked
from pricebook.notifications.kinds import MAILED_AS, Kind, MailKind
from pricebook.notifications.models import Mail
from pricebook.users.models import User

# Of an endpoint's URL only the host is told: the rest may be secret.
_ENDPOINTS = table("webhook_endpoints", column("id"), column("url"), column("description"))
_HOST = r"^https?://(?:[^/?#]*@)?([^/?#]+)"

# Of what a job found: the rest, such as each refused row, is read where the job is.
_FOUND = (
    "rows", "bytes", "filename", "file", "expires_at",
    "mode", "applied", "new", "changed", "unchanged", "refused", "has_errors_csv",
)  # fmt: skip


def credentials_used(event_ids: Sequence[UUID]) -> Insert:
    """Tell people of a new password or API key of theirs, which may be somebody else's doing."""
    is_key = EventRecord.type == ApiKeyCreated.type
    owner = case(
        (is_key, EventRecord.payload["user_id"].astext.cast(Uuid())), else_=EventRecord.subject_id
    )
    data = picked("api_key_id", "scopes").concat(
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
        .where(among(event_ids))
    )
    return _each_mailed(told, Kind.SECURITY)


def finished_jobs(event_ids: Sequence[UUID]) -> Insert:
    """Tell the owners of jobs how these ended; who cancels knows, and others said not to tell."""
    found = [part for name in _FOUND for part in (name, Job.result[name])]
    said = ("name", Job.params["name"], "error", Job.error)
    data = picked("job_id", "kind", "status").concat(
        func.jsonb_build_object(*said, *_happened(), *found)
    )
    told = (
        select(
            EventRecord.id.label("event_id"),
            User.id.label("user_id"),
            func.jsonb_strip_nulls(data).label("data"),
        )
        .select_from(EventRecord)
        .join(Job, Job.id == EventRecord.subject_id)
        .join(User, User.id == Job.owner_id)
        .where(
            among(event_ids),
            Job.is_told,
            EventRecord.payload["status"].astext != Status.CANCELLED,
        )
    )
    return _each_mailed(told, Kind.JOB_FINISHED)


def webhook_trouble(event_ids: Sequence[UUID]) -> Insert:
    """Tell the owner of a webhook; if nobody acts as that any more, every acting admin."""
    owner = aliased(User)
    owner_id = EventRecord.payload["owner_id"].astext.cast(Uuid())
    has_owner = exists().where(owner.id == owner_id, *_acts_as_admin(owner))
    host = func.substring(_ENDPOINTS.c.url, _HOST)
    data = picked("webhook_id", "reason", "delivery_id").concat(
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
        .where(among(event_ids))
    )
    return _each_mailed(told, Kind.WEBHOOK_TROUBLE)


def _acts_as_admin(user: type[User]) -> tuple[ColumnElement[bool], ...]:
    return (user.role == Role.ADMIN, user.disabled_at.is_(None))


def password_resets(event_ids: Sequence[UUID]) -> Insert:
    """Mail those who asked for a new password."""
    return _mailed(MailKind.PASSWORD_RESET, _people(event_ids))


def verifications(event_ids: Sequence[UUID]) -> Insert:
    """Mail those whose address is new, or who ask to have it verified."""
    people = _people(event_ids).where(User.email_verified_at.is_(None))
    return _mailed(MailKind.VERIFY_EMAIL, people)


def _people(event_ids: Sequence[UUID]) -> Select[UUID, UUID]:
    """Select the users that the events are about, with the last event of each."""
    return (
        select(User.id.label("user_id"), EventRecord.id.label("event_id"))
        .select_from(EventRecord)
        .join(User, User.id == EventRecord.subject_id)
        .where(among(event_ids), User.disabled_at.is_(None))
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
    wanted = as_preferred(told, kind)
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
    return notifications_of(kind, wanted, mails, is_same)


def _happened() -> tuple[Any, ...]:
    return ("event", EventRecord.type, "occurred_at", EventRecord.occurred_at)
