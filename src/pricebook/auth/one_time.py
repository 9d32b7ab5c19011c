"""Tokens that work once: whoever sends one back reads the mail that carried it."""

from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth import queries
from pricebook.core.security import new_token, token_digest

Purpose = Literal["password_reset", "verify_email"]

LIFETIMES: Final[dict[Purpose, timedelta]] = {
    "password_reset": timedelta(hours=1),
    "verify_email": timedelta(days=7),
}
_PREFIXES: Final[dict[Purpose, str]] = {"password_reset": "pbr_", "verify_email": "pbv_"}


async def issue_token(
    session: AsyncSession, *, user_id: UUID, email: str, purpose: Purpose
) -> SecretStr:
    """Make a token for the mail that is about to go to `email`; only its digest is kept.

    Those made before stay good: a mail that is sent again has another token.
    """
    token = new_token(_PREFIXES[purpose])
    digest = token_digest(token.get_secret_value())
    lifetime = LIFETIMES[purpose]
    await session.execute(queries.issued_token(digest, user_id, email, purpose, lifetime))
    return token


async def redeem_token(session: AsyncSession, token: SecretStr, purpose: Purpose) -> UUID | None:
    """Use a token up, with all others of its user and purpose, and return whose it was.

    None: there is no such token, or its time is over, or since it was made the address, or for a
    new password the password, has changed. The user stays locked until the transaction ends.
    """
    digest = token_digest(token.get_secret_value())
    used = (await session.execute(queries.redeemed_tokens(digest, purpose))).all()
    return next((user_id for used_digest, user_id in used if used_digest == digest), None)
