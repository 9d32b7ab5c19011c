"""Clients of Valkey: of one server, or of whichever server Sentinel names as the primary.

Valkey Cluster is refused. arq watches and changes several keys in one transaction, and they lie on
different servers there; and what Valkey holds here is small enough for one server.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from pricebook.core.valkey_urls import SentinelUrl, is_sentinel, read_sentinel_url

_SENTINEL_SECONDS = 1.0


@asynccontextmanager
async def connected(url: SecretStr, **options: Any) -> AsyncIterator[Redis]:  # noqa: ANN401 -- redis-py's own
    """Open a client of the server, or of the primary, that `url` names."""
    if not is_sentinel(url.get_secret_value()):
        async with Redis.from_url(url.get_secret_value(), **options) as valkey:
            yield valkey
        return
    pool = primary_pool(url, **options)
    async with AsyncExitStack() as opened:
        for sentinel in pool.sentinel_manager.sentinels:
            opened.push_async_callback(sentinel.aclose)
        yield await opened.enter_async_context(Redis.from_pool(pool))


def primary_pool(url: SecretStr, **options: Any) -> SentinelConnectionPool:  # noqa: ANN401 -- likewise
    """Make connections that each ask Sentinel anew where the primary is."""
    named = read_sentinel_url(url.get_secret_value())
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        named.service,
        _sentinels(named),
        db=named.database,
        username=named.username,
        password=named.password,
        connection_class=_TlsConnection if named.has_tls else _Connection,
        **options,
    )


class _Connection(SentinelManagedConnection):
    """Asks where the primary is before each try; redis-py tries one address to the end."""

    async def connect_to(self, address: tuple[str, int]) -> None:
        patient, self.retry = self.retry, Retry(NoBackoff(), 0)
        try:
            await super().connect_to(address)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        finally:
            self.retry = patient


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    """The same over TLS."""


def _sentinels(named: SentinelUrl) -> Sentinel:
    """Ask each for so long only: while one machine is gone, so is its Sentinel."""
    options = {
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "username": named.sentinel_username,
        "password": named.sentinel_password,
        "ssl": named.has_tls,
    }
    return Sentinel(named.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # likewise
