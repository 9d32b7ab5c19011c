"""Selects and statements over sessions, API keys and the accounts they belong to."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Delete,
    LargeBinary,
    Select,
    Update,
    any_,
    bindparam,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningDelete

from pricebook.auth.models import ApiKey, KnownNetwork, OneTimeToken, Session
from pricebook.auth.schemas import ApiKeyOut, Listing, SessionOut
from pricebook.core.reading import columns_of
from pricebook.users.models import User

_USE_IS_STAMPED_EVERY = timedelta(minutes=1)
_NETWORK_IS_KNOWN_FOR = timedelta(days=365)
_NETWORK_IS_STAMPED_EVERY = timedelta(days=1)

Credential = type[Session] | type[ApiKey]


def _is_of_present_epoch() -> ColumnElement[bool]:
    """Whether no change of the user's credentials has ended the session."""
    is_kept = Session.id.is_not_distinct_from(User.kept_session_id)
    return or_(Session.credentials_epoch == User.credentials_epoch, is_kept)


def _has_time_left(credential: Credential) -> ColumnElement[bool]:
    return or_(credential.expires_at.is_(None), credential.expires_at > func.now())


def _caller_by(
    credential: Credential, is_asked_for: ColumnElement[bool]
) -> Select[*tuple[Any, ...]]:
    """Select who calls with a credential, and whether its use is to be stamped."""
    stamped_since = func.now() - _USE_IS_STAMPED_EVERY
    return (
        select(
            credential.id.label("credential_id"),
            User.id.label("user_id"),
            User.role,
            func.coalesce(credential.last_used_at < stamped_since, True).label("is_unstamped"),
        )
        .join(User, User.id == credential.user_id)
        .where(
            is_asked_for,
            _has_time_left(credential),
            User.disabled_at.is_(None),
        )
    )


def caller_by_session() -> Select[*tuple[Any, ...]]:
    """Select who calls with the session of `:digest`."""
    is_asked_for = Session.token_digest == bindparam("digest")
    return _caller_by(Session, is_asked_for).where(_is_of_present_epoch())


def caller_by_api_key() -> Select[*tuple[Any, ...]]:
    """Select who calls with the API key of `:digest`, and its scopes."""
    is_asked_for = ApiKey.token_digest == bindparam("digest")
    return _caller_by(ApiKey, is_asked_for).add_columns(ApiKey.scopes)


def callers_by_session() -> Select[*tuple[Any, ...]]:
    """Select who calls with the sessions of `:digests`."""
    callers = _caller_by(Session, _is_among_digests(Session)).where(_is_of_present_epoch())
    return callers.add_columns(Session.token_digest)


def callers_by_api_key() -> Select[*tuple[Any, ...]]:
    """Select who calls with the API keys of `:digests`, and their scopes."""
    callers = _caller_by(ApiKey, _is_among_digests(ApiKey))
    return callers.add_columns(ApiKey.scopes, ApiKey.token_digest)


def _is_among_digests(credential: Credential) -> ColumnElement[bool]:
    return credential.token_digest == any_(bindparam("digests", type_=ARRAY(LargeBinary)))


def account() -> Select[*tuple[Any, ...]]:
    """Select what a log-in to `:email` from `:network` is checked against."""
    known = select(KnownNetwork).where(
        KnownNetwork.user_id == User.id, KnownNetwork.network == bindparam("network")
    )
    return select(
        User.id,
        User.hashed_password,
        User.credentials_epoch,
        User.disabled_at,
        known.exists().label("is_known_network"),
    ).where(func.lower(User.email) == func.lower(bindparam("email")))


def upgraded_hash(user_id: UUID, old: str, new: str) -> Update:
    """Replace an outdated hash, unless the password has changed; the user stays the same."""
    unchanged = update(User).where(User.id == user_id, User.hashed_password == old)
    return unchanged.values(hashed_password=new, updated_at=User.updated_at)


def remembered_network(user_id: UUID, network: str) -> Insert:
    """Remember that someone logged in from a network; at most one write a day."""
    row = insert(KnownNetwork).values(user_id=user_id, network=network)
    return row.on_conflict_do_update(
        index_elements=[KnownNetwork.user_id, KnownNetwork.network],
        set_={"last_login_at": func.now()},
        where=KnownNetwork.last_login_at < func.now() - _NETWORK_IS_STAMPED_EVERY,
    )


def stamped_use(credential: Credential, ids: Collection[UUID]) -> Update:
    """Stamp credentials as used now; one that another process is stamping is passed over."""
    stamped_since = func.now() - _USE_IS_STAMPED_EVERY
    unstamped = func.coalesce(credential.last_used_at < stamped_since, True)
    chosen = select(credential.id).where(credential.id.in_(ids), unstamped)
    return (
        update(credential)
        .where(credential.id.in_(chosen.with_for_update(skip_locked=True)))
        .values(last_used_at=func.now())
    )


def sessions_of(user_id: UUID, current: UUID) -> Select[*tuple[Any, ...]]:
    """Select what `SessionOut` shows of someone's sessions."""
    shown = [name for name in SessionOut.model_fields if name != "is_current"]
    return (
        select(*columns_of(SessionOut, Session, shown), (Session.id == current).label("is_current"))
        .join(User, User.id == Session.user_id)
        .where(User.id == user_id, _has_time_left(Session), _is_of_present_epoch())
    )


def api_keys_of(user_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select what `ApiKeyOut` shows of someone's API keys."""
    shown = select(*columns_of(ApiKeyOut, ApiKey))
    return shown.where(ApiKey.user_id == user_id, _has_time_left(ApiKey))


def page_of(
    rows: Select[*tuple[Any, ...]], credential: Credential, listing: Listing, before: UUID | None
) -> Select[*tuple[Any, ...]]:
    """Select one page of `rows`, newest first, and one more to tell whether another follows."""
    page = rows if before is None else rows.where(credential.id < before)
    return page.order_by(credential.id.desc()).limit(listing.limit + 1)


def issued_token(
    digest: bytes, user_id: UUID, email: str, purpose: str, lifetime: timedelta
) -> Insert:
    """Write down a one-time token; for a user who is gone, nothing."""
    row = select(
        literal(digest),
        User.id,
        literal(purpose),
        User.credentials_epoch,
        literal(email),
        func.now() + lifetime,
    ).where(User.id == user_id)
    names = ["token_digest", "user_id", "purpose", "credentials_epoch", "email", "expires_at"]
    return insert(OneTimeToken).from_select(names, row)


def bearer_of_token() -> Select[UUID, str]:
    """Select the user for whom the one-time token of `:digest` is good for `:purpose`."""
    is_of_present_epoch = OneTimeToken.credentials_epoch == User.credentials_epoch
    return (
        select(User.id, User.email)
        .join(OneTimeToken, OneTimeToken.user_id == User.id)
        .where(
            OneTimeToken.token_digest == bindparam("digest"),
            OneTimeToken.purpose == bindparam("purpose"),
            OneTimeToken.expires_at > func.now(),
            OneTimeToken.email == User.email,
            or_(OneTimeToken.purpose != "password_reset", is_of_present_epoch),
            User.disabled_at.is_(None),
        )
    )


def redeemed_tokens(digest: bytes, purpose: str) -> ReturningDelete[bytes, UUID]:
    """Delete a good token, and all others of the same user and purpose; see which came back.

    The user is locked first: whoever waits for the lock sees what the one before has left.
    """
    bearer = bearer_of_token().params(digest=digest, purpose=purpose)
    chosen = bearer.with_for_update(of=User, key_share=True).cte("bearer")
    return (
        delete(OneTimeToken)
        .where(OneTimeToken.user_id == chosen.c.id, OneTimeToken.purpose == purpose)
        .returning(OneTimeToken.token_digest, OneTimeToken.user_id)
    )


def live_api_keys(user_id: UUID) -> Select[int]:
    """Count someone's API keys."""
    keys = select(func.count()).select_from(ApiKey)
    return keys.where(ApiKey.user_id == user_id, _has_time_left(ApiKey))


def without_session(user_id: UUID, session_id: UUID) -> Delete:
    """Delete one of someone's sessions."""
    return delete(Session).where(Session.user_id == user_id, Session.id == session_id)


def without_other_sessions(user_id: UUID, current: UUID) -> Delete:
    """Delete someone's sessions but one."""
    return delete(Session).where(Session.user_id == user_id, Session.id != current)


def without_api_key(user_id: UUID, api_key_id: UUID) -> Delete:
    """Delete one of someone's API keys."""
    return delete(ApiKey).where(ApiKey.user_id == user_id, ApiKey.id == api_key_id)


def without_ended() -> tuple[Delete, ...]:
    """Delete what has ended: sessions, API keys, tokens, and networks long unused."""
    over = or_(Session.expires_at <= func.now(), ~_is_of_present_epoch())
    return (
        delete(Session).where(Session.user_id == User.id, over),
        delete(ApiKey).where(ApiKey.expires_at <= func.now()),
        delete(OneTimeToken).where(OneTimeToken.expires_at <= func.now()),
        delete(KnownNetwork).where(KnownNetwork.last_login_at < func.now() - _NETWORK_IS_KNOWN_FOR),
    )
