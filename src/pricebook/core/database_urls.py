"""URLs of PostgreSQL: any usual spelling taken, and one host told from another."""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_SCHEME = re.compile(r"^postgres(ql)?(\+\w+)?://")
# What SQLAlchemy calls otherwise than libpq and asyncpg do.
_NAMES = {"ssl": "sslmode"}


def normal_url(url: str) -> str:
    """Return `url` with the driver that the service uses, and its hosts where hosts belong.

    Raises:
        ValueError: It is no URL of PostgreSQL, or gives hosts in two ways, or not a port for each.

    """
    if not _SCHEME.match(url):
        message = "must begin with postgresql://"
        raise ValueError(message)
    place, question, query = _SCHEME.sub("postgresql+asyncpg://", url).partition("?")
    if not question:
        return place
    options = [(_NAMES.get(name, name), value) for name, value in parse_qsl(query)]
    hosts, ports = _listed(options, "host"), _listed(options, "port")
    if len(hosts) > 1:
        place = _with_hosts(place, hosts, ports)
        options = [(name, value) for name, value in options if name not in {"host", "port"}]
    asked = urlencode([_asked(*option) for option in options], safe="/:")
    return f"{place}?{asked}" if asked else place


def _listed(options: list[tuple[str, str]], wanted: str) -> list[str]:
    return [part for name, value in options if name == wanted for part in value.split(",")]


def _asked(name: str, value: str) -> tuple[str, str]:
    """A connection that only reads never counts as one to write on, wherever it leads."""
    if (name, value) == ("target_session_attrs", "read-write"):
        return name, "primary"
    return name, value


def _with_hosts(place: str, hosts: list[str], ports: list[str]) -> str:
    scheme, _, rest = place.partition("://")
    authority, slash, database = rest.partition("/")
    user, at, named = authority.rpartition("@")
    if named:
        message = "must name its hosts either before the database or in ?host="
        raise ValueError(message)
    if len(ports) == 1:
        ports *= len(hosts)
    if ports and len(ports) != len(hosts):
        message = "must have a port for each host, or one for all"
        raise ValueError(message)
    places = [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)] if ports else hosts
    return f"{scheme}://{user}{at}{','.join(places)}{slash}{database}"


def each_host(url: str) -> list[str]:
    """Return a URL, as asyncpg takes it, for each host that a normal URL names."""
    scheme, _, rest = url.replace("+asyncpg", "", 1).partition("://")
    authority, slash, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    return [f"{scheme}://{user}{at}{host}{slash}{path}" for host in hosts.split(",")]


def host_in(url: str) -> str:
    """Return the host and port of a URL of one host, without the credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]
