"""Log-ins, the sessions they open, and API keys."""

import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import Delete, Select, func
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth import queries
from pricebook.auth.authenticator import Authenticator
from pricebook.auth.errors import (
    ApiKeyNotFound,
    ExpiryPast,
    LogInFailed,
    SessionNotFound,
    TooManyApiKeys,
)
from pricebook.auth.events import ApiKeyCreated, ApiKeyRevoked
from pricebook.auth.models import ApiKey, Session
from pricebook.auth.schemas import ApiKeyIn, Listing, LogIn
from pricebook.core import attempts
from pricebook.core.attempts import Budget, PasswordGate
from pricebook.core.clock import now
from pricebook.core.database import Database
from pricebook.core.outbox import record
from pricebook.core.pagination import Page, id_before, newest_first
from pricebook.core.principal import Principal
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.core.security import API_KEY_PREFIX, SESSION_PREFIX, new_token, token_digest
from pricebook.core.settings import AuthSettings, Settings
from pricebook.users.models import User

MAX_API_KEYS = 100
"""Of one person."""

DEFAULT_LIFETIME = timedelta(hours=AuthSettings().session_hours)

_USER_AGENT_LENGTH = 300
_ACCOUNT = Compiled(queries.account())


def make_authenticator(database: Database, settings: Settings) -> Authenticator:
    """Return what tells a process who calls; see `Authenticator`."""
    return Authenticator(database, settings)


async def log_in(
    session: AsyncSession, gate: PasswordGate, form: LogIn, *, address: str, user_agent: str | None
) -> str:
    """Open a session and return its token.

    An unknown address, a wrong password and a disabled user take the same way, the same time and
    the same refusal.

    Raises:
        LogInFailed: It is not the password of an acting user.
        TooManyFailures: Too many tries failed before.

    """
    email = _normal(form.username)
    account = await gate.reads.row(_ACCOUNT, email=email, network=address)
    budgets = _budgets(gate.settings, email, address, account)
    hashed = account["hashed_password"] if account and not account["disabled_at"] else None
    verdict = await gate.check(form.password, hashed, budgets)
    if account is None or not verdict.is_right:
        raise LogInFailed
    user = await _same_user(session, account)
    if verdict.new_hash is not None:
        old = account["hashed_password"]
        await session.execute(queries.upgraded_hash(user.id, old, verdict.new_hash))
    await attempts.forget_failures(session, budgets[0])
    await session.execute(queries.remembered_network(user.id, address))
    lifetime = timedelta(hours=gate.settings.session_hours)
    return await open_session(
        session, user, address=address, user_agent=user_agent, lifetime=lifetime
    )


async def _same_user(session: AsyncSession, account: Row) -> User:
    """Return the user of a checked account, unless shut out or changed while it was checked."""
    user = await session.get(User, account["id"])
    if user is None or user.credentials_epoch != account["credentials_epoch"]:
        raise LogInFailed
    return user


def _normal(email: str) -> str:
    return unicodedata.normalize("NFC", email.strip().lower())


def _budgets(
    settings: AuthSettings, email: str, network: str, account: Row | None
) -> Sequence[Budget]:
    """Return what a failed log-in is charged to; first the account's from this network."""
    here = Budget.of(settings.failures_per_account_and_network, "log-in", email, network)
    from_network = Budget.of(settings.failures_per_network, "log-in from", network)
    if account and account["is_known_network"]:
        # Where the owner has been before, strangers' failures elsewhere do not lock the owner out.
        return here, from_network
    return here, from_network, Budget.of(settings.failures_per_account, "log-in to", email)


async def forget_log_in_failures(session: AsyncSession, email: str, network: str) -> None:
    """Let someone who was locked out for forgetting the password try again, from here at least."""
    for kind in (("log-in", email, network), ("log-in to", email)):
        await attempts.forget_failures(session, Budget.of(0, *kind))


async def open_session(
    session: AsyncSession,
    user: User,
    *,
    address: str,
    user_agent: str | None,
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> str:
    """Open a session for `user`, who has been checked, and return its token."""
    token = new_token(SESSION_PREFIX).get_secret_value()
    session.add(
        Session(
            user_id=user.id,
            token_digest=token_digest(token),
            credentials_epoch=user.credentials_epoch,
            address=address,
            user_agent=(user_agent or "").replace("\x00", "")[:_USER_AGENT_LENGTH] or None,
            expires_at=func.now() + lifetime,
        )
    )
    await session.flush()
    return token


async def list_sessions(reads: ReadPool, person: Principal, listing: Listing) -> Page[Row]:
    """Return one page of someone's sessions, newest first."""
    rows = queries.sessions_of(person.user_id, person.credential_id)
    return await _page(reads, rows, Session, listing)


async def get_session(reads: ReadPool, person: Principal, session_id: UUID) -> Row:
    """Return one of someone's sessions."""
    rows = queries.sessions_of(person.user_id, person.credential_id)
    found = await reads.row(Compiled(rows.where(Session.id == session_id)))
    if found is None:
        raise SessionNotFound(session_id=session_id)
    return found


async def close_session(session: AsyncSession, person: Principal, session_id: UUID) -> None:
    """End one of someone's sessions."""
    if not await _delete(session, queries.without_session(person.user_id, session_id)):
        raise SessionNotFound(session_id=session_id)


async def close_other_sessions(session: AsyncSession, person: Principal) -> None:
    """End someone's sessions but the one that asks."""
    await _delete(session, queries.without_other_sessions(person.user_id, person.credential_id))


async def list_api_keys(reads: ReadPool, person: Principal, listing: Listing) -> Page[Row]:
    """Return one page of someone's API keys, newest first."""
    return await _page(reads, queries.api_keys_of(person.user_id), ApiKey, listing)


async def get_api_key(reads: ReadPool, person: Principal, api_key_id: UUID) -> Row:
    """Return one of someone's API keys."""
    mine = queries.api_keys_of(person.user_id)
    found = await reads.row(Compiled(mine.where(ApiKey.id == api_key_id)))
    if found is None:
        raise ApiKeyNotFound(api_key_id=api_key_id)
    return found


async def create_api_key(
    session: AsyncSession, person: Principal, new: ApiKeyIn
) -> tuple[ApiKey, SecretStr]:
    """Make an API key; return it with the key itself, which is stored nowhere."""
    if new.expires_at is not None and new.expires_at <= now():
        raise ExpiryPast(pointer="/expires_at")
    if (await session.scalar(queries.live_api_keys(person.user_id)) or 0) >= MAX_API_KEYS:
        raise TooManyApiKeys
    key = new_token(API_KEY_PREFIX)
    days = new.expires_in_days
    api_key = ApiKey(
        user_id=person.user_id,
        token_digest=token_digest(key.get_secret_value()),
        name=new.name,
        scopes=sorted(set(new.scopes)),
        expires_at=now() + timedelta(days=days) if days else new.expires_at,
    )
    session.add(api_key)
    await session.flush()
    record(
        session,
        ApiKeyCreated(api_key_id=api_key.id, user_id=person.user_id, scopes=api_key.scopes),
    )
    return api_key, key


async def revoke_api_key(session: AsyncSession, person: Principal, api_key_id: UUID) -> None:
    """Revoke one of someone's API keys."""
    if not await _delete(session, queries.without_api_key(person.user_id, api_key_id)):
        raise ApiKeyNotFound(api_key_id=api_key_id)
    record(session, ApiKeyRevoked(api_key_id=api_key_id, user_id=person.user_id))


async def prune_expired(session: AsyncSession) -> int:
    """Delete what has ended: sessions, keys, counts of failures; return how many rows."""
    deleted = [await _delete(session, statement) for statement in queries.without_ended()]
    return sum(deleted) + await attempts.prune(session)


async def _delete(session: AsyncSession, statement: Delete) -> int:
    return cast("CursorResult[object]", await session.execute(statement)).rowcount


async def _page(
    reads: ReadPool,
    rows: Select[*tuple[Any, ...]],
    credential: queries.Credential,
    listing: Listing,
) -> Page[Row]:
    before = id_before(listing.cursor)
    found = await reads.rows(Compiled(queries.page_of(rows, credential, listing, before)))
    return newest_first(found, listing.limit)
