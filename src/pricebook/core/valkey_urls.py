"""How a Valkey behind Sentinel is named: redis+sentinel://host1:26379,host2:26379/service/0."""

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://", "redis-cluster://")

_PORT = 26_379


class SentinelUrl(NamedTuple):
    """What such a URL says."""

    hosts: list[tuple[str, int]]
    service: str
    database: int
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None
    has_tls: bool


def is_sentinel(url: str) -> bool:
    """Whether it names Sentinels, not a server."""
    return url.startswith(SENTINEL_SCHEMES)


def read_sentinel_url(url: str) -> SentinelUrl:
    """Read redis+sentinel://user:password@host:port,…/service/database.

    Sentinel's own credentials are `?sentinel_username=…&sentinel_password=…`; with rediss+sentinel://
    all connections use TLS.

    Raises:
        ValueError: It is none; what it says does not show the URL, which may hold passwords.

    """
    try:
        return _read(url)
    except (ValueError, TypeError):
        message = (
            "must look like redis+sentinel://user:password@host1:26379,host2:26379/service/0; "
            "in a password, write @ : / as %40 %3A %2F"
        )
        raise ValueError(message) from None


def _read(url: str) -> SentinelUrl:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    named = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    read = SentinelUrl(
        hosts=[_host(host) for host in hosts.split(",")],
        service=unquote(service),
        database=int(database or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=named.pop("sentinel_username", None),
        sentinel_password=named.pop("sentinel_password", None),
        has_tls=parts.scheme == "rediss+sentinel",
    )
    if named or not read.service:
        raise ValueError
    return read


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, parts.port or _PORT
