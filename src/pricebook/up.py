"""`pricebook up`: the whole of Pricebook on one machine, until told to stop."""

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer
from pydantic import SecretStr

from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.folder import secret_key_in, take_folder, write_private
from pricebook.core.mendable import MendableError
from pricebook.core.metrics import shared_folder
from pricebook.core.processes import Supervisor
from pricebook.core.settings import Settings
from pricebook.core.spawn import Child, Service, command_of
from pricebook.serving import api_services, listen, url_of

# All has stopped within 10 s: the API first, then the worker, Valkey and PostgreSQL. By these
# moments each is killed if it has not ended.
_API_STOPPED_BY_SECONDS = 4.5
_WORKER_STOPPED_BY_SECONDS = 8.0
_VALKEY_STOPPED_BY_SECONDS = 8.5
_POSTGRES_STOPPED_BY_SECONDS = 9.5
_LONGEST_STOP_SECONDS = 3.0

_READY_SECONDS = 60.0


class CannotStartError(MendableError):
    """Something is not up that has to be."""


@dataclass(frozen=True)
class RunFile:
    """`run.json`, which tells scripts where everything is and which processes do the work."""

    path: Path
    url: str
    api: Sequence[Service]
    workers: Sequence[Service]
    database_url: str
    redis_url: str

    def write(self) -> None:
        """Write it whole, for its owner alone: the URLs hold passwords."""
        content = {
            "api": {"url": self.url, "pids": [service.pid for service in self.api]},
            "worker": {"pids": [service.pid for service in self.workers]},
            "database_url": self.database_url,
            "redis_url": self.redis_url,
        }
        write_private(self.path, json.dumps(content, indent=2) + "\n")


def up(settings: Settings, *, with_demo: bool) -> None:
    """Start everything, say how to log in, and keep it running."""
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_folder(folder)
    run_path = folder / "run.json"
    _end_leftovers(run_path)
    try:
        _run(settings, run_path, with_demo=with_demo)
    except KeyboardInterrupt:
        _say("Stopped before it was up.")
    finally:
        run_path.unlink(missing_ok=True)
        os.close(lock)


def with_running_servers(settings: Settings) -> Settings:
    """Return settings that name the servers of the `up` that runs, if they name no others."""
    run_path = settings.data_dir / "run.json"
    if not settings.is_embedded or not run_path.exists():
        return settings
    running = json.loads(run_path.read_text())
    named = _naming(settings, running["database_url"], running["redis_url"])
    return _complete(named, running["api"]["url"])


@contextmanager
def database_alone(settings: Settings) -> Iterator[Settings]:
    """Run the data folder's PostgreSQL, and nothing else, for a command that needs no more."""
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_folder(folder)
    postgres = Postgres(folder)
    try:
        postgres.start()
        found = {
            "database_url": SecretStr(postgres.url),
            "secret_key": settings.secret_key or secret_key_in(folder),
        }
        yield settings.model_copy(update=found)
    finally:
        postgres.stop()
        os.close(lock)


def _run(settings: Settings, run_path: Path, *, with_demo: bool) -> None:
    with (
        listen(settings.host, settings.port) as listening,
        shared_folder() as shared,
        Supervisor() as supervisor,
    ):
        settings = _complete(_start_servers(settings, supervisor), url_of(listening))
        env = _environment(settings) | shared
        workers = [Service("worker", _worker(env))]
        api = api_services(settings, listening, env)
        supervisor.add(*workers, stopped_by_seconds=_WORKER_STOPPED_BY_SECONDS)
        supervisor.add(*api, stopped_by_seconds=_API_STOPPED_BY_SECONDS)
        # The API loads its code while the database is made ready: that halves the time to start.
        for service in api:
            service.hold()
        password = _prepare(settings, with_demo=with_demo)
        for service in api:
            service.release()
        run_file = RunFile(
            run_path,
            url_of(listening),
            api,
            workers,
            _plain(settings.database_url),
            _plain(settings.redis_url),
        )
        _wait_until_served(run_file)
        supervisor.on_change = run_file.write
        supervisor.launch()
        _greet(settings, run_file, password)
        supervisor.run()
        listening.close()
        _say("Stopping …")
    _say("Stopped.")


def _prepare(settings: Settings, *, with_demo: bool) -> SecretStr | None:
    """Make the database ready, and return the admin's password if it was made up here."""
    from pricebook.prepare import first_admin, load_demo, migrate  # noqa: PLC0415 -- after the API's start

    migrate(settings)
    password = first_admin(settings)
    if with_demo:
        _say(f"Loaded {load_demo(settings):,} demo items.")
    return password


def _start_servers(settings: Settings, supervisor: Supervisor) -> Settings:
    """Start PostgreSQL and Valkey, unless the settings name others."""
    if not settings.is_embedded:
        return settings
    postgres, valkey = Postgres(settings.data_dir), Valkey(settings.data_dir)
    supervisor.add(postgres, stopped_by_seconds=_POSTGRES_STOPPED_BY_SECONDS)
    supervisor.add(valkey, stopped_by_seconds=_VALKEY_STOPPED_BY_SECONDS)
    postgres.start()
    valkey.start()
    return _naming(settings, postgres.url, valkey.url)


def _complete(settings: Settings, url: str) -> Settings:
    """Fill in what `up` can decide for itself: a secret key, where mail goes, its own address."""
    folder = settings.data_dir.absolute()
    mail_url = settings.mail.url or SecretStr((folder / "mail").as_uri())
    return settings.model_copy(
        update={
            "secret_key": settings.secret_key or secret_key_in(folder),
            "public_url": settings.public_url if "public_url" in settings.model_fields_set else url,
            "mail": settings.mail.model_copy(update={"url": mail_url}),
        }
    )


def _naming(settings: Settings, database_url: str, redis_url: str) -> Settings:
    named = Settings(database_url=SecretStr(database_url), redis_url=SecretStr(redis_url))
    servers = {"database_url": named.database_url, "redis_url": named.redis_url}
    return settings.model_copy(update=servers)


def _plain(secret: SecretStr | None) -> str:
    """Spell it out; a URL as every client knows it."""
    return secret.get_secret_value().replace("+asyncpg", "") if secret else ""


def _environment(settings: Settings) -> dict[str, str]:
    """Give the children what they need, and not the admin's password."""
    env = {name: value for name, value in os.environ.items() if name != "PRICEBOOK_ADMIN_PASSWORD"}
    return env | {
        "PRICEBOOK_DATABASE_URL": _plain(settings.database_url),
        "PRICEBOOK_REDIS_URL": _plain(settings.redis_url),
        "PRICEBOOK_SECRET_KEY": _plain(settings.secret_key),
        "PRICEBOOK_PUBLIC_URL": settings.public_url,
        "PRICEBOOK_MAIL__URL": _plain(settings.mail.url),
        # No load balancer stands before it, and somebody waits at the terminal.
        "PRICEBOOK_DRAIN_SECONDS": "0",
        "PRICEBOOK_STOP_SECONDS": str(min(settings.stop_seconds, _LONGEST_STOP_SECONDS)),
    }


def _worker(env: dict[str, str]) -> Child:
    return Child(command=(sys.executable, "-m", "pricebook.worker"), env=env)


def _end_leftovers(run_path: Path) -> None:
    """End what a killed `up` left behind; its database is gone, so it has nothing to finish."""
    try:
        run = json.loads(run_path.read_text())
    except FileNotFoundError:
        return
    for pid in (*run["api"]["pids"], *run["worker"]["pids"]):
        while "-m pricebook." in command_of(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _wait_until_served(run_file: RunFile) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(run_file.url):
        for service in run_file.api:
            if not service.is_alive():
                message = f"the {service.name} process ended at once; its last lines say why"
                raise CannotStartError(message)
        if time.monotonic() > deadline:
            message = f"the API does not answer within {_READY_SECONDS:.0f} s"
            raise CannotStartError(message)
        time.sleep(0.05)


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=1)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _greet(settings: Settings, run_file: RunFile, made_password: SecretStr | None) -> None:
    hint = "as set or shown at the first start"
    if made_password is not None:
        hint = f"{made_password.get_secret_value()}  (shown only this once)"
    _say(
        f"\nPricebook is up.\n\n"
        f"  API       {run_file.url}/v1\n"
        f"  Docs      {run_file.url}/docs\n"
        f"  Log in    {settings.admin_email}\n"
        f"  Password  {hint}\n"
        f"  Data      {settings.data_dir.absolute()}\n"
        f"  Mail      {_mail_hint(settings)}\n\n"
        f"Ctrl-C stops it."
    )


def _mail_hint(settings: Settings) -> str:
    parts = urlsplit(_plain(settings.mail.url))
    if parts.scheme == "file":
        return f"written to {unquote(parts.path)}; set PRICEBOOK_MAIL__URL to have it sent"
    return f"sent over {parts.hostname}"


def _say(text: str) -> None:
    """Tell the person at the terminal, if it is still there."""
    with suppress(OSError):
        typer.echo(text)
