"""Mail on its way out: from a letter to a message, and to a mail server or a folder."""

import asyncio
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import Policy
from email.utils import format_datetime, parseaddr
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectResponseError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from email_validator import EmailNotValidError, validate_email

from pricebook.core.clock import now
from pricebook.core.deliveries import Outcome
from pricebook.core.settings import MailSettings

_STARTTLS = {"auto": None, "always": True, "never": False}
_GOODBYE_SECONDS = 1.0
_PERMANENT = 500
# Sessions that the server wants otherwise (RFC 4954, section 6): another log-in, or TLS first.
_SESSION_CODES = {530, 534, 535, 538}
_ERROR_LENGTH = 500
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What one person is to read."""

    id: UUID
    """Stays the same over retries, so that a second copy can be told for one."""
    recipient: str
    subject: str
    text: str
    html: str
    unsubscribe_url: str | None = None
    """Takes a POST from whoever wants no more of these (RFC 8058)."""


class _Whole(UnstructuredHeader, BaseHeader):
    """A header of one long word: Python would fold it into encoded words, which no one reads."""

    def fold(self, *, policy: Policy) -> str:
        """Write it on one line (RFC 5322, section 2.1.1, allows 998 characters)."""
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _Whole)
_HEADERS.map_to_type("message-id", _Whole)
_POLICY = policy.SMTP.clone(header_factory=_HEADERS)


class Mailer:
    """Hands letters to what `settings.url` names: a mail server, or a folder."""

    def __init__(self, settings: MailSettings) -> None:
        """Connect to nothing yet.

        Raises:
            ValueError: The sender is no address.

        """
        self._settings = settings
        self._sender = _address_of(*parseaddr(on_one_line(settings.sender)))
        self._url = urlsplit(settings.url.get_secret_value()) if settings.url else None
        self._own_name: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is anywhere to send to."""
        return self._url is not None

    async def send(self, letter: Letter) -> Outcome:
        """Try once, for `timeout_seconds` at the most.

        What the server refuses for good (5xx, RFC 5321, section 4.2.1) is final. What it refuses
        for now is not, nor what is wrong with the way there: no server, no log-in, no TLS.
        """
        try:
            message = compose(letter, self._sender)
            await self._carry(message)
        except (SMTPException, OSError, TimeoutError, ValueError) as error:
            return Outcome(is_final=_is_final(error), error=self._told(error))
        return Outcome(is_delivered=True)

    async def complaint(self) -> str | None:
        """Talk to the mail server, short of handing it a letter; return what goes wrong, if so."""
        if self._url is None or self._url.scheme == "file":
            return None
        try:
            await self._carry_to_server(self._url)
        except (SMTPException, OSError, TimeoutError) as error:
            return self._told(error)
        return None

    async def _carry(self, message: EmailMessage) -> None:
        if self._url is None:
            reason = "PRICEBOOK_MAIL__URL is not set"
            raise ConnectionError(reason)
        if self._url.scheme == "file":
            await asyncio.to_thread(_write_file, Path(unquote(self._url.path)), message)
        else:
            await self._carry_to_server(self._url, message)

    async def _carry_to_server(self, url: SplitResult, message: EmailMessage | None = None) -> None:
        with ExitStack() as afterwards:
            async with asyncio.timeout(self._settings.timeout_seconds):
                client = await self._client(url)
                # As a context manager it would, interrupted, wait for an answer to QUIT.
                afterwards.callback(client.close)
                await client.connect()
                if message is not None:
                    await client.send_message(message)
            # It is sent; however the server takes leave.
            with suppress(SMTPException, OSError, TimeoutError):
                await client.quit(timeout=_GOODBYE_SECONDS)

    async def _client(self, url: SplitResult) -> SMTP:
        if self._own_name is None:
            # Once: a resolver may take seconds to find it.
            self._own_name = await asyncio.to_thread(socket.getfqdn)
        is_tls = url.scheme == "smtps"
        return SMTP(
            hostname=url.hostname,
            port=url.port,
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            use_tls=is_tls,
            start_tls=False if is_tls else _STARTTLS[self._settings.starttls],
            timeout=self._settings.timeout_seconds,
            local_hostname=self._own_name,
        )

    def _told(self, error: Exception) -> str:
        """Return an error as one line, without what a server said beyond its first words."""
        replies = list(_replies(error))
        if replies:
            return f"{replies[0].code} {on_one_line(replies[0].message)}"[:_ERROR_LENGTH]
        if isinstance(error, TimeoutError) and not str(error):
            return f"no answer within {self._settings.timeout_seconds:g} s"
        return f"{type(error).__name__}: {on_one_line(str(error))}"[:_ERROR_LENGTH]


def compose(letter: Letter, sender: Address) -> EmailMessage:
    """Return the letter as a message (RFC 5322), in text and HTML."""
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    # Without the name, which is whatever somebody typed in.
    message["To"] = _address_of("", letter.recipient)
    message["Subject"] = on_one_line(letter.subject)
    message["Date"] = format_datetime(now())
    message["Message-ID"] = f"<{letter.id}@{sender.domain}>"
    # No out-of-office reply, please (RFC 3834, section 5).
    message["Auto-Submitted"] = "auto-generated"
    if letter.unsubscribe_url is not None:
        message["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(letter.text, cte="quoted-printable")
    message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    return message


def on_one_line(text: str) -> str:
    """Return text without line breaks and control characters, fit for a header."""
    return _BREAKS.sub(" ", text).strip()


def _address_of(name: str, address: str) -> Address:
    """Return an address for a header and the envelope; its host in ASCII, however it is written.

    Raises:
        ValueError: It is no address.

    """
    user, _, host = address.rpartition("@")
    if not user or not host or _BREAKS.search(address):
        message = f"{address!r} is no e-mail address"
        raise ValueError(message)
    if not host.isascii():
        with suppress(EmailNotValidError):
            host = validate_email(f"user@{host}", check_deliverability=False).ascii_domain
    return Address(display_name=name, username=user, domain=host)


def _write_file(folder: Path, message: EmailMessage) -> None:
    """Write a message as a file that is whole when it appears; names sort by time."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_ascii = str(message["To"]).isascii()
    content = message.as_bytes(policy=policy.SMTP if is_ascii else policy.SMTPUTF8)
    name = f"{now():%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}.eml"
    unfinished = folder / f".{name}"
    # It may hold a link that lets its reader in.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(folder / name)


def _is_final(error: Exception) -> bool:
    """Whether this mail will never be taken; a server that refuses us may yet be set right.

    Postfix distinguishes likewise: `smtp_skip_5xx_greeting`, `smtp_sasl_auth_soft_bounce`.
    """
    if isinstance(error, SMTPConnectResponseError | SMTPHeloError | SMTPAuthenticationError):
        return False
    # A certificate that is not believed is an OSError and a ValueError at once.
    if isinstance(error, SMTPNotSupported) or not isinstance(error, SMTPException | OSError):
        return True
    codes = [reply.code for reply in _replies(error)]
    return bool(codes) and all(code >= _PERMANENT and code not in _SESSION_CODES for code in codes)


def _replies(error: Exception) -> Iterator[SMTPResponseException]:
    if isinstance(error, SMTPRecipientsRefused):
        yield from error.recipients
    elif isinstance(error, SMTPResponseException):
        yield error
