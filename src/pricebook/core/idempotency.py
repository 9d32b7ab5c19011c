"""Idempotency-Key on every POST: a repeat gets the stored answer and changes nothing.

After draft-ietf-httpapi-idempotency-key-header. The answer is stored in the transaction of the
change itself, so a crash between the two cannot happen: either both are there or neither. A
transaction-level advisory lock marks a request as under way, and PostgreSQL frees it with the
connection, whatever becomes of the process.

Answers may hold what is shown once, such as a new API key. So they lie encrypted under a key made
of the caller's own token and Idempotency-Key, neither of which is stored: a dump opens none.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Header, Request, Response
from sqlalchemy import BigInteger, Index, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.current import bearer_token, identify
from pricebook.core.database import Base
from pricebook.core.errors import Conflict, Invalid
from pricebook.core.session import DbSession

_KEPT_HEADERS = ("content-type", "location", "etag")
_NONCE_BYTES = 12


class IdempotencyKeyInUse(Conflict):
    """A request with this Idempotency-Key is still under way."""


class IdempotencyKeyReused(Invalid):
    """This Idempotency-Key came before, with another request."""


class StoredAnswer(Base):
    """The answer to a POST, kept for its repeats."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_expires_at", "expires_at"),)

    credential_id: Mapped[UUID] = mapped_column(primary_key=True)
    key_digest: Mapped[bytes] = mapped_column(primary_key=True)
    request_digest: Mapped[bytes]
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    sealed_body: Mapped[bytes]
    expires_at: Mapped[datetime]


class AnswerRepeated(Exception):
    """Ends a repeated request with the answer of the first."""

    def __init__(self, response: Response) -> None:
        """Carry `response` to the exception handler."""
        self.response = response


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that this request alone may answer, until its transaction ends."""

    session: AsyncSession
    credential_id: UUID
    key_digest: bytes
    request_digest: bytes
    secret: bytes

    def seal(self, body: bytes) -> bytes:
        """Encrypt an answer."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, body, self.request_digest)

    def unseal(self, sealed: bytes) -> bytes:
        """Decrypt an answer."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return AESGCM(self.secret).decrypt(nonce, body, self.request_digest)


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any unique text, such as a UUID: a repeat with it changes nothing.",
    ),
]


async def claim_key(
    request: Request, session: DbSession, idempotency_key: IdempotencyKey = None
) -> None:
    """Claim the request's Idempotency-Key, if it has one; raises as `claim` does."""
    if idempotency_key is not None:
        await claim(request, session, idempotency_key, await request.body())


async def claim(request: Request, session: AsyncSession, key: str, body: bytes) -> None:
    """Claim an Idempotency-Key for a request with this body; its digest will do.

    Raises:
        AnswerRepeated: The request was answered before; this is that answer.
        IdempotencyKeyInUse: The first request with the key is still under way.
        IdempotencyKeyReused: The key came with another request.
        Unavailable: That answer might get lost in a failover, as it might have at first.

    """
    if (principal := await identify(request)) is None:
        return
    token = bearer_token(request) or ""
    made = Claim(
        session=session,
        credential_id=principal.credential_id,
        key_digest=hashlib.sha256(key.encode()).digest(),
        request_digest=_digest(request, body, _secret("request", token, key)),
        secret=_secret("answer", token, key),
    )
    if not await _lock(made):
        raise IdempotencyKeyInUse
    if stored := await _find_answer(made):
        repeat = AnswerRepeated(_repeat(made, stored))
        # It says once more that all is done. So it waits, as the first did, perhaps in vain, until
        # every server that has to hold it does: a commit of its own comes after that one.
        await session.commit()
        raise repeat
    request.state.claim = made


async def keep_answer(request: Request, response: Response) -> None:
    """Store a successful answer, in the transaction that it answers for."""
    claim: Claim | None = getattr(request.state, "claim", None)
    if claim is None or not response.status_code < 300:  # noqa: PLR2004 -- where success ends
        return
    hours = request.app.state.settings.idempotency.keep_hours
    claim.session.add(
        StoredAnswer(
            credential_id=claim.credential_id,
            key_digest=claim.key_digest,
            request_digest=claim.request_digest,
            status=response.status_code,
            headers={
                name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers
            },
            sealed_body=claim.seal(bytes(response.body)),
            expires_at=func.now() + timedelta(hours=hours),
        )
    )
    await claim.session.flush()


async def prune(session: AsyncSession) -> int:
    """Forget answers past their time; return how many."""
    expired = delete(StoredAnswer).where(StoredAnswer.expires_at < func.now())
    return len((await session.scalars(expired.returning(StoredAnswer.status))).all())


def _digest(request: Request, body: bytes, secret: bytes) -> bytes:
    """Return what a repeat is known by: keyed, since a body may hold a password to guess at."""
    target = request.scope["path"].encode() + b"?" + request.scope["query_string"]
    sent = b"%s %s\n%s" % (request.method.encode(), target, body)
    return hmac.digest(secret, sent, "sha256")


def _secret(purpose: str, token: str, key: str) -> bytes:
    info = f"pricebook idempotency {purpose}".encode()
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=info)
    return derive.derive(orjson.dumps([token, key]))


_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)))


async def _lock(claim: Claim) -> bool:
    name = hashlib.sha256(claim.credential_id.bytes + claim.key_digest).digest()
    number = int.from_bytes(name[:8], signed=True)
    return bool(await claim.session.scalar(_TRY_LOCK, {"number": number}))


async def _find_answer(claim: Claim) -> StoredAnswer | None:
    """Return the answer kept under the claimed key; one past its time is forgotten here."""
    query = select(StoredAnswer, StoredAnswer.expires_at <= func.now()).where(
        StoredAnswer.credential_id == claim.credential_id,
        StoredAnswer.key_digest == claim.key_digest,
    )
    # A lock on a row is written to the log, without which a commit would wait for nobody.
    found = (await claim.session.execute(query.with_for_update())).one_or_none()
    if found is None:
        return None
    stored, is_over = found
    if not is_over:
        return stored
    await claim.session.delete(stored)
    await claim.session.flush()
    return None


def _repeat(claim: Claim, stored: StoredAnswer) -> Response:
    if stored.request_digest != claim.request_digest:
        raise IdempotencyKeyReused(pointer="header/Idempotency-Key")
    return Response(
        claim.unseal(stored.sealed_body),
        status_code=stored.status,
        headers={**stored.headers, "Idempotency-Replayed": "true"},
    )
