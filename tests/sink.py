"""A mail server that keeps what it is sent, or refuses it as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from ssl import SSLContext
from typing import Any
from warnings import catch_warnings, simplefilter

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Sink:
    """Takes mail; or answers as `replies` say first: a number is so many seconds of silence."""

    replies: list[str | float] = field(default_factory=list)
    recipient_replies: list[str] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    accepted: list[EmailMessage] = field(default_factory=list)
    attempts: list[EmailMessage] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"smtp://localhost:{self.port}"

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        reply = self.recipient_replies.pop(0) if self.recipient_replies else "250 OK"
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(  # noqa: N802 -- aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.attempts.append(message)
        self.envelopes.append(envelope)
        self.sessions.append(session)
        reply = self.replies.pop(0) if self.replies else "250 taken"
        if not isinstance(reply, str):
            await asyncio.sleep(reply)
            return "451 too late"
        if reply.startswith("2"):
            self.accepted.append(message)
        return reply


@asynccontextmanager
async def serving(
    sink: Sink, *, ssl: SSLContext | None = None, **options: Any
) -> AsyncIterator[Sink]:
    """Serve SMTP until the end."""
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        with catch_warnings():
            # That log-ins without TLS are unwise is known.
            simplefilter("ignore")
            return SMTP(sink, hostname="localhost", loop=loop, **options)

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=ssl)
    sink.port = server.sockets[0].getsockname()[1]
    async with server:
        yield sink
