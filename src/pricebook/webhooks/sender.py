"""The HTTP client of webhooks: pooled, bounded in time and size, and it goes nowhere unguarded."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_exceptions import InvalidUrlClientError

from pricebook.core.clock import now
from pricebook.core.database import causes
from pricebook.core.deliveries import Outcome
from pricebook.core.settings import WebhookSettings
from pricebook.webhooks.guard import AddressRefusedError, Guard

_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"Pricebook/{version('pricebook')}",
}
_HEAD_BYTES = 1_024
# Shorter than receivers usually keep a connection open, so that none is closed under a request.
_IDLE_SECONDS = 2.0
# Looking up a name blocks a thread for as long as its server likes.
_LOOKUPS_AT_ONCE = 32
_LOOKUP_SECONDS = 5
_MOST_DIGITS = 9
_GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOutcome(Outcome):
    """How an attempt went, as the receiver's owner will want to know it."""

    started_at: datetime
    duration_ms: int = 0
    status_code: int | None = None
    response_head: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants to hear nothing more."""
        return self.status_code == _GONE


class Sender:
    """Sends requests, and turns whatever comes of them into outcomes."""

    def __init__(self, settings: WebhookSettings) -> None:
        """Make the client, within the loop that it is to run on."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_IDLE_SECONDS,
                resolver=_Resolver(),
                ttl_dns_cache=_LOOKUP_SECONDS,
                socket_factory=Guard(settings.allowed_networks).socket,
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookOutcome:
        """Send once, and wait for the answer within the time that the settings give."""
        started_at, started = now(), time.perf_counter()
        status_code = head = retry_after = None
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status_code = answer.status
                retry_after = answer.headers.get("Retry-After")
                head = await _head_of(answer)
                error = _complaint(status_code)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
            error = _in_words(failure)
        return WebhookOutcome(
            is_delivered=error is None,
            is_final=status_code == _GONE,
            error=error,
            retry_after_seconds=_seconds(retry_after) if error else None,
            started_at=started_at,
            duration_ms=round((time.perf_counter() - started) * 1000),
            status_code=status_code,
            response_head=head,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _head_of(answer: aiohttp.ClientResponse) -> str | None:
    """Read the beginning of an answer; its status holds, whatever becomes of the rest."""
    head = b""
    try:
        while len(head) < _HEAD_BYTES and (more := await answer.content.read(_HEAD_BYTES)):
            head += more
    except (aiohttp.ClientError, OSError, TimeoutError):
        answer.close()
    return head[:_HEAD_BYTES].decode(errors="replace").replace("\x00", "") or None


def _complaint(status_code: int) -> str | None:
    match status_code // 100:
        case 2:
            return None
        case 3:
            return "redirect refused"
        case _:
            return f"answered {status_code}"


def _in_words(failure: BaseException) -> str:
    """Say in a few words why there is no answer; the URL, which may hold a secret, is not in it."""
    for cause in causes(failure):
        for kind, words in _WORDS:
            if isinstance(cause, kind):
                return words
        if isinstance(cause, aiohttp.ClientError):
            continue  # its own kinds of TLS errors do not say what was wrong
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS failed: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {(cause.reason or 'no handshake').replace('_', ' ').lower()}"
    return "could not connect" if isinstance(failure, OSError) else "no valid HTTP"


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timed out"),
    (AddressRefusedError, "address not allowed"),
    # An address in a form that only some programs take for one.
    (InvalidUrlClientError, "address not allowed"),
    (aiohttp.ClientConnectorDNSError, "name not found"),
    (UnicodeError, "name not found"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionResetError, "connection reset"),
    (aiohttp.ServerDisconnectedError, "connection closed without an answer"),
)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:_MOST_DIGITS])
    try:
        return (parsedate_to_datetime(retry_after) - now()).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


class _Resolver(AbstractResolver):
    """Looks names up in threads of its own, so that slow name servers hold up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _type, protocol, _name, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
