"""A forgotten password, and the proof that an e-mail address is one's own."""

from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth import queries
from pricebook.auth.errors import OneTimeTokenInvalid, TooManyMailRequests
from pricebook.auth.one_time import Purpose, redeem_token
from pricebook.auth.schemas import PasswordReset
from pricebook.auth.service import forget_log_in_failures
from pricebook.core import attempts
from pricebook.core.attempts import Budget, PasswordGate
from pricebook.core.outbox import record
from pricebook.core.principal import Principal
from pricebook.core.reading import Compiled
from pricebook.core.security import token_digest
from pricebook.core.settings import AuthSettings
from pricebook.users import queries as user_queries
from pricebook.users import service as users
from pricebook.users.events import PasswordResetRequested

_BEARER = Compiled(queries.bearer_of_token())


async def request_reset(
    session: AsyncSession, settings: AuthSettings, email: str, *, network: str
) -> None:
    """Have a mail sent with which the user of an address can set a new password.

    Nothing tells whether there is such a user: not even that the address has had its mails.

    Raises:
        TooManyMailRequests: The network asks too often.

    """
    to_address = Budget.of(settings.mails_per_address, "reset", email)
    from_network = Budget.of(settings.mail_requests_per_network, "reset from", network)
    window = settings.failure_window_seconds
    overdrawn = await attempts.spend(session, [to_address, from_network], window)
    if from_network in overdrawn:
        raise TooManyMailRequests(retry_after_seconds=overdrawn[from_network])
    user_id = await session.scalar(user_queries.acting_by_email(email))
    if user_id is not None and to_address not in overdrawn:
        record(session, PasswordResetRequested(user_id=user_id))


async def reset_password(
    session: AsyncSession, gate: PasswordGate, reset: PasswordReset, *, network: str
) -> None:
    """Set a new password with the token of a mail, and end all sessions; API keys live on.

    Raises:
        OneTimeTokenInvalid: The token is no good, or was used meanwhile.
        PasswordIsAddress: The new password is the e-mail address, or nearly.

    """
    # Asked first, so that nobody's hashing is done for nothing; the token is used up at the end,
    # since no connection is held while the password waits to be hashed.
    digest = token_digest(reset.token.get_secret_value())
    known = await gate.reads.row(_BEARER, digest=digest, purpose="password_reset")
    if known is None:
        raise OneTimeTokenInvalid(pointer="/token")
    users.refuse_address(reset.new_password, known["email"])
    hashed = await gate.hasher.hash(reset.new_password)
    user_id = await _redeem(session, reset.token, "password_reset")
    await users.reset_password(session, user_id, hashed)
    await forget_log_in_failures(session, known["email"], network)


async def verify_email(session: AsyncSession, token: SecretStr) -> None:
    """Take an e-mail address as proven by the token of a mail.

    Raises:
        OneTimeTokenInvalid: The token is no good.

    """
    await users.verify_email(session, await _redeem(session, token, "verify_email"))


async def _redeem(session: AsyncSession, token: SecretStr, purpose: Purpose) -> UUID:
    user_id = await redeem_token(session, token, purpose)
    if user_id is None:
        raise OneTimeTokenInvalid(pointer="/token")
    return user_id


async def request_verification(
    session: AsyncSession, settings: AuthSettings, me: Principal
) -> None:
    """Have another mail sent with which someone can prove the e-mail address.

    Raises:
        TooManyMailRequests: They have had enough of them.

    """
    budget = Budget.of(settings.mails_per_address, "verification", str(me.user_id))
    overdrawn = await attempts.spend(session, [budget], settings.failure_window_seconds)
    if budget in overdrawn:
        raise TooManyMailRequests(retry_after_seconds=overdrawn[budget])
    await users.request_verification(session, me.user_id)
