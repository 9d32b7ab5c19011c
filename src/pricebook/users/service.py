"""What can be done with users."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.attempts import Budget, PasswordGate
from pricebook.core.database import violated
from pricebook.core.outbox import record
from pricebook.core.pagination import CursorInvalid, Page, decode_cursor, encode_cursor
from pricebook.core.principal import Principal, Role
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.core.security import PasswordHasher, is_guessable
from pricebook.core.settings import AuthSettings
from pricebook.users import queries
from pricebook.users.errors import (
    CurrentPasswordWrong,
    EmailTaken,
    LastAdmin,
    PasswordIsAddress,
    PasswordUnchanged,
    UserNotFound,
)
from pricebook.users.events import (
    EmailVerificationRequested,
    EmailVerified,
    UserCreated,
    UserDeleted,
    UserDisabled,
    UserPasswordChanged,
    UserUpdated,
)
from pricebook.users.models import User
from pricebook.users.schemas import (
    MePatch,
    PasswordChange,
    UserIn,
    UserListing,
    UserOut,
    UserPatch,
    UserPublic,
)

_USER = Compiled(queries.user_with(UserOut))
_PUBLIC_USER = Compiled(queries.user_with(UserPublic))
_PASSWORD = Compiled(queries.password_of())
_MOMENT = TypeAdapter(datetime)


async def get_user(reads: ReadPool, user_id: UUID) -> Row:
    """Return what `UserOut` shows of a user."""
    return await _get(reads, _USER, user_id)


async def get_public_user(reads: ReadPool, user_id: UUID) -> Row:
    """Return what anyone may know of a user."""
    return await _get(reads, _PUBLIC_USER, user_id)


async def _get(reads: ReadPool, statement: Compiled, user_id: UUID) -> Row:
    user = await reads.row(statement, user_id=user_id)
    if user is None:
        raise UserNotFound(user_id=user_id)
    return user


async def list_users(reads: ReadPool, users: UserListing) -> Page[Row]:
    """Return one page of users."""
    after = _place(users.cursor, users.sort) if users.cursor else None
    rows = await reads.rows(Compiled(queries.page_of(users, after)))
    if len(rows) <= users.limit:
        return Page(items=rows)
    last = rows[users.limit - 1]
    place = (last[users.sort.removeprefix("-")], last["id"])
    return Page(items=rows[: users.limit], next_cursor=encode_cursor(users.sort, place))


def _place(cursor: str, sort: str) -> tuple[Any, UUID]:
    value, user_id = decode_cursor(cursor, sort, 2)
    try:
        moment = _MOMENT.validate_strings(value) if sort.endswith("created_at") else value
        return moment, UUID(user_id)
    except (AttributeError, TypeError, ValidationError, ValueError) as error:
        raise CursorInvalid(pointer="query/cursor") from error


async def count_users(reads: ReadPool, users: UserListing) -> int:
    """Return how many users are asked for, on all pages."""
    count: int = await reads.value(Compiled(queries.count_of(users)))
    return count


async def create_user(
    session: AsyncSession, hasher: PasswordHasher, new: UserIn, *, is_vouched_for: bool = False
) -> User:
    """Make a user; who is vouched for need not prove the e-mail address.

    Raises:
        EmailTaken: Somebody has the address.

    """
    hashed = await hasher.hash(new.password)
    user = User(email=new.email, name=new.name, role=new.role, hashed_password=hashed)
    if is_vouched_for:
        user.prove_address()
    session.add(user)
    await _flush(session)
    record(session, UserCreated(user_id=user.id, role=user.role))
    return user


async def _flush(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if violated(error) == "uq_users_email":
            raise EmailTaken(pointer="/email") from error
        raise


async def update_user(session: AsyncSession, user_id: UUID, patch: UserPatch) -> User:
    """Change the fields that were sent; a new role and shutting out end the user's sessions.

    Raises:
        EmailTaken: Somebody else has the address.
        LastAdmin: Nobody could manage users afterwards.

    """
    changes = patch.changes()
    loses_admin = changes.get("disabled") or changes.get("role", Role.ADMIN) != Role.ADMIN
    user = await (_keep_an_admin if loses_admin else _lock)(session, user_id)
    return await _edit(session, user, changes)


async def update_me(session: AsyncSession, me: Principal, patch: MePatch) -> User:
    """Change the fields that were sent."""
    return await _edit(session, await _lock(session, me.user_id), patch.changes())


async def _edit(session: AsyncSession, user: User, changes: dict[str, Any]) -> User:
    was_disabled = user.disabled
    changed = user.edit(changes)
    await _flush(session)
    if changed:
        record(session, UserUpdated(user_id=user.id, changed=changed))
    if "email" in changed:
        record(session, EmailVerificationRequested(user_id=user.id))
    if user.disabled and not was_disabled:
        record(session, UserDisabled(user_id=user.id))
    return user


async def delete_user(session: AsyncSession, user_id: UUID) -> None:
    """Delete a user, with all sessions and API keys.

    Raises:
        LastAdmin: Nobody could manage users afterwards.

    """
    await session.delete(await _keep_an_admin(session, user_id))
    record(session, UserDeleted(user_id=user_id))


async def _lock(session: AsyncSession, user_id: UUID) -> User:
    user = await session.scalar(queries.for_change(user_id))
    if user is None:
        raise UserNotFound(user_id=user_id)
    return user


async def _keep_an_admin(session: AsyncSession, user_id: UUID) -> User:
    """Return a user who may cease to be an admin, since there is another."""
    found = {user.id: user for user in await session.scalars(queries.with_acting_admins(user_id))}
    user = found.pop(user_id, None)
    if user is None:
        raise UserNotFound(user_id=user_id)
    if user.is_acting_admin and not found:
        raise LastAdmin(user_id=user_id)
    return user


async def change_password(
    session: AsyncSession, gate: PasswordGate, me: Principal, change: PasswordChange
) -> None:
    """Set a new password, and end the user's sessions but the one that asks; API keys live on.

    Raises:
        CurrentPasswordWrong: It is not the current password.
        PasswordIsAddress: The new one is the e-mail address, or nearly.
        PasswordUnchanged: The new one is the old one.
        TooManyFailures: Too many wrong ones came before.

    """
    known = await _get(gate.reads, _PASSWORD, me.user_id)
    refuse_address(change.new_password, known["email"])
    await _prove(gate, me, change.current_password, known["hashed_password"])
    if change.new_password == change.current_password:
        raise PasswordUnchanged(pointer="/new_password")
    hashed = await gate.hasher.hash(change.new_password)
    user = await _lock(session, me.user_id)
    if user.hashed_password != known["hashed_password"]:
        # Another change was faster: what was just proven is the current password no more.
        raise CurrentPasswordWrong(pointer="/current_password")
    user.hashed_password = hashed
    user.end_sessions(keep=me.credential_id)
    record(session, UserPasswordChanged(user_id=user.id))


def refuse_address(new_password: SecretStr, email: str) -> None:
    """Refuse a new password that is the user's own address, or nearly."""
    if is_guessable(new_password, email, email.partition("@")[0]):
        raise PasswordIsAddress(pointer="/new_password")


async def reset_password(session: AsyncSession, user_id: UUID, hashed: str) -> None:
    """Set a new password for someone who reads the user's mail; all of the user's sessions end."""
    user = await _lock(session, user_id)
    user.hashed_password = hashed
    user.end_sessions()
    record(session, UserPasswordChanged(user_id=user.id))
    _take_as_proven(session, user)


async def verify_email(session: AsyncSession, user_id: UUID) -> None:
    """Take a user's e-mail address as proven."""
    _take_as_proven(session, await _lock(session, user_id))


def _take_as_proven(session: AsyncSession, user: User) -> None:
    if user.prove_address():
        record(session, EmailVerified(user_id=user.id))


async def request_verification(session: AsyncSession, user_id: UUID) -> None:
    """Have a mail sent that lets a user prove the e-mail address, unless that is done."""
    if (await _lock(session, user_id)).email_verified_at is None:
        record(session, EmailVerificationRequested(user_id=user_id))


async def _prove(gate: PasswordGate, me: Principal, password: SecretStr, hashed: str) -> None:
    limit = gate.settings.failures_per_account_and_network
    budget = Budget.of(limit, "current password", str(me.user_id))
    verdict = await gate.check(password, hashed, [budget])
    if not verdict.is_right:
        raise CurrentPasswordWrong(pointer="/current_password")


async def ensure_admin(session: AsyncSession, email: str, password: SecretStr) -> bool:
    """Make an admin unless someone has the address, who is left alone; return whether one was made.

    Whoever runs the service vouches for the address.

    Raises:
        ValidationError: It is no e-mail address, or not a good enough password.

    """
    new = UserIn(email=email, name="Administrator", password=password, role=Role.ADMIN)
    if await session.scalar(queries.by_email(new.email)) is not None:
        return False
    hasher = PasswordHasher(AuthSettings())
    try:
        await create_user(session, hasher, new, is_vouched_for=True)
    finally:
        hasher.close()
    return True
