"""From a token to its caller: one joined read, believed for a fraction of a second."""

import asyncio
import time
from collections.abc import Collection, Mapping
from uuid import UUID

import structlog
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth import queries
from pricebook.auth.models import ApiKey, Session
from pricebook.core.database import Database
from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.reading import Compiled, Row
from pricebook.core.security import API_KEY_PREFIX, SESSION_PREFIX, token_digest
from pricebook.core.settings import Settings

_MAX_KNOWN = 10_000

_KINDS: dict[str, tuple[queries.Credential, Compiled]] = {
    SESSION_PREFIX: (Session, Compiled(queries.caller_by_session())),
    API_KEY_PREFIX: (ApiKey, Compiled(queries.caller_by_api_key())),
}
_ALL_KINDS: tuple[Compiled, ...] = (
    Compiled(queries.callers_by_session()),
    Compiled(queries.callers_by_api_key()),
)

log = structlog.get_logger(__name__)


class Authenticator:
    """Tells who calls. Each process has one, and none believes itself for longer than allowed."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Ask `database`, and believe an answer for `settings.auth.principal_cache_seconds`."""
        self._database = database
        self._believed_seconds = settings.auth.principal_cache_seconds
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._unstamped: set[tuple[queries.Credential, UUID]] = set()
        self._stamping: asyncio.Task[None] | None = None

    async def __call__(self, token: str) -> Principal | None:
        """Return the caller that `token` stands for, or None if it stands for nobody."""
        digest = token_digest(token)
        # Before the read: what is revoked while it runs must not be believed any longer for it.
        now = time.monotonic()
        believed_until, principal = self._known.get(digest, (0.0, None))
        if now < believed_until:
            return principal
        principal = await self._ask(token, digest)
        if principal is None:
            self._known.pop(digest, None)
        else:
            self._remember(digest, principal, now)
        return principal

    async def recheck(self, tokens: Collection[str]) -> Mapping[str, Principal]:
        """Ask anew about many tokens at once; those that stand for nobody any more are left out."""
        digests = {token_digest(token): token for token in tokens}
        found = {}
        for statement in _ALL_KINDS:
            for caller in await self._database.reads.rows(statement, digests=list(digests)):
                found[digests[caller["token_digest"]]] = _principal(caller)
        return found

    def forget_after(self, session: AsyncSession) -> None:
        """Believe nothing any more once `session` has committed.

        Everything and not just one entry: to fill up again is cheap, and happens all the time.
        """
        event.listen(
            session.sync_session, "after_commit", lambda _session: self._known.clear(), once=True
        )

    async def close(self) -> None:
        """Finish stamping what was used."""
        if self._stamping is not None:
            await self._stamping

    async def _ask(self, token: str, digest: bytes) -> Principal | None:
        kind = _KINDS.get(token[: len(SESSION_PREFIX)])
        if kind is None:
            return None
        credential, statement = kind
        caller = await self._database.reads.row(statement, digest=digest)
        if caller is None:
            return None
        if caller["is_unstamped"]:
            self._stamp(credential, caller["credential_id"])
        return _principal(caller)

    def _remember(self, digest: bytes, principal: Principal, now: float) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[digest] = (now + self._believed_seconds, principal)

    def _stamp(self, credential: queries.Credential, credential_id: UUID) -> None:
        """Have the use of a credential written down, off the request's way and one write a time."""
        self._unstamped.add((credential, credential_id))
        if self._stamping is None or self._stamping.done():
            self._stamping = asyncio.create_task(self._stamp_all())

    async def _stamp_all(self) -> None:
        while self._unstamped:
            batch, self._unstamped = self._unstamped, set()
            try:
                await self._write(batch)
            except (OSError, SQLAlchemyError):
                # The next use tries again.
                log.warning("uses of credentials were not stamped", count=len(batch))

    async def _write(self, batch: set[tuple[queries.Credential, UUID]]) -> None:
        async with self._database.sessions.begin() as session:
            for credential, _statement in _KINDS.values():
                ids = [one for kind, one in batch if kind is credential]
                if ids:
                    await session.execute(queries.stamped_use(credential, ids))


def _principal(caller: Row) -> Principal:
    scopes = caller.get("scopes")
    return Principal(
        user_id=caller["user_id"],
        role=Role(caller["role"]),
        credential_id=caller["credential_id"],
        scopes=None if scopes is None else frozenset(map(Scope, scopes)),
    )
