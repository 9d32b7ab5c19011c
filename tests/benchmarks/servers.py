"""What is measured: PostgreSQL and Valkey as in production, Pricebook's API, and the ceiling."""

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.migrating import migrate
from pricebook.core.settings import FileSettings, LogSettings, Settings
from pricebook.core.spawn import Child, Service
from pricebook.serving import api_services, listen

ROOT = Path(__file__).parents[2]
_START_SECONDS = 30
_STOP_SECONDS = 10
# Everything is counted as in production, but one caller here asks as much as a thousand do there.
_NO_LIMIT = "1000000000"
_LIFTED = (
    "PRICEBOOK_LIMITS__REQUESTS",
    "PRICEBOOK_LIMITS__ANONYMOUS_REQUESTS",
    "PRICEBOOK_AUTH__FAILURES_PER_NETWORK",
    "PRICEBOOK_AUTH__FAILURES_PER_ACCOUNT",
    "PRICEBOOK_AUTH__FAILURES_PER_ACCOUNT_AND_NETWORK",
    "PRICEBOOK_AUTH__MAILS_PER_ADDRESS",
    "PRICEBOOK_AUTH__MAIL_REQUESTS_PER_NETWORK",
)


@dataclass(frozen=True)
class Server:
    """A web server to send requests to."""

    name: str
    port: int
    pid: int


@dataclass(frozen=True)
class Field:
    """All servers of a run."""

    settings: Settings
    pricebook: Server
    ceiling: Server
    postgres_pid: int


@contextmanager
def field() -> Iterator[Field]:
    """Start everything in a folder that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pricebook-benchmark-"))
    folder.chmod(0o755)  # root's PostgreSQL runs as another user, who has to pass
    postgres, valkey = Postgres(folder), Valkey(folder)
    try:
        postgres.start()
        valkey.start()
        settings = _settings(postgres, valkey, folder)
        migrate(settings)
        with _web(settings, postgres.url, folder) as (pricebook, ceiling):
            yield Field(settings, pricebook, ceiling, postgres.pid)
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder)


def _settings(postgres: Postgres, valkey: Valkey, folder: Path) -> Settings:
    return Settings(
        database_url=SecretStr(postgres.url),
        redis_url=SecretStr(valkey.url),
        secret_key=SecretStr(secrets.token_urlsafe(32)),
        files=FileSettings(url=(folder / "files").as_uri()),
        log=LogSettings(format="json"),
    )


@contextmanager
def _web(settings: Settings, database_url: str, folder: Path) -> Iterator[tuple[Server, Server]]:
    """Run both web servers: the same uvicorn, one process each, as many connections to read."""
    ours, theirs = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    pricebook = _pricebook(settings, ours, folder / "pricebook.log")
    ceiling = _ceiling(settings, theirs, database_url, folder / "ceiling.log")
    try:
        for service in (pricebook, ceiling):
            service.launch()
        yield _server(pricebook, ours), _server(ceiling, theirs)
    finally:
        for service in (pricebook, ceiling):
            _stop(service)
        ours.close()
        theirs.close()


def _pricebook(settings: Settings, listening: socket.socket, log: Path) -> Service:
    assert settings.database_url
    assert settings.redis_url
    assert settings.files.url
    env = {
        **os.environ,
        **dict.fromkeys(_LIFTED, _NO_LIMIT),
        "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
        "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
        "PRICEBOOK_FILES__URL": settings.files.url,
        "PRICEBOOK_LOG__FORMAT": "json",
    }
    (service,) = api_services(settings, listening, env)
    return Service(service.name, replace(service.child(), log=log))


def _ceiling(settings: Settings, listening: socket.socket, url: str, log: Path) -> Service:
    connections = str(settings.database.read_pool_size)
    number = listening.fileno()
    command = (sys.executable, "-m", "tests.benchmarks.reference", str(number), connections)
    env = {**os.environ, "BENCHMARK_DATABASE_URL": url}
    return Service("ceiling", Child(command, env=env, cwd=ROOT, log=log, pass_fds=(number,)))


@contextmanager
def broadcaster(servers: Field) -> Iterator[Server]:
    """Run what the streams are measured beside: the same uvicorn, one process."""
    assert servers.settings.redis_url
    with listen("127.0.0.1", 0) as listening:
        number = listening.fileno()
        command = (sys.executable, "-m", "tests.benchmarks.broadcaster", str(number))
        env = {**os.environ, "BENCHMARK_VALKEY_URL": servers.settings.redis_url.get_secret_value()}
        service = Service("broadcaster", Child(command, env=env, cwd=ROOT, pass_fds=(number,)))
        service.launch()
        try:
            yield _server(service, listening)
        finally:
            _stop(service)


def _server(service: Service, listening: socket.socket) -> Server:
    """Wait until it answers."""
    port = listening.getsockname()[1]
    ends_at = time.monotonic() + _START_SECONDS
    while service.is_alive() and time.monotonic() < ends_at:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.sendall(b"GET /ping HTTP/1.1\r\nhost: benchmark\r\nconnection: close\r\n\r\n")
                if probe.recv(16):
                    return Server(service.name, port, service.pid)
        except TimeoutError:
            continue
    log = service.child().log
    message = f"{service.name} does not serve:\n{log.read_text()[-2000:] if log else ''}"
    raise RuntimeError(message)


def _stop(service: Service) -> None:
    service.ask_to_stop()
    if not service.has_stopped(_STOP_SECONDS):
        service.kill()
