"""A streaming replica, made of a running PostgreSQL as an operator makes one."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from pricebook.core.embedded import Postgres
from pricebook.core.embedded.postgres import _TOOL_SECONDS, _user_for_root
from pricebook.core.embedded.server import EmbeddedServer, EmbeddedServerError


class Standby(Postgres):
    """A standby of `primary`; in `data_dir/postgres`, like any other."""

    def __init__(self, data_dir: Path, primary: Postgres) -> None:
        super().__init__(data_dir, durable=False)
        self.primary = primary
        self.is_spoilt = False
        """Whether it no longer follows the primary."""

    def delay(self, delay: str) -> None:
        """Have commits take effect so much later than on the primary, such as `5s`."""
        self.configure(recovery_min_apply_delay=delay)

    def configure(self, **settings: str) -> None:
        lines = [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in settings.items()]
        self._sql("\n".join([*lines, "SELECT pg_reload_conf();"]))

    def promote(self) -> None:
        """Make a primary of it, as a failover does."""
        self.is_spoilt = True
        self._sql("SELECT pg_promote();")

    def freeze(self) -> None:
        """Stop every process of it, as a black hole does: connections stay, and nobody answers."""
        freeze(self)

    def thaw(self) -> None:
        thaw(self)

    def rebuild(self) -> None:
        """Throw it away, and make it anew."""
        self.stop()
        shutil.rmtree(self.cluster)
        self.start()
        self.is_spoilt = False

    def _recall(self) -> None:
        """Roles and their passwords are the primary's."""
        super()._recall()
        self._password = self.primary._password
        self._admin_password = self.primary._admin_password

    def _prepare(self) -> None:
        if self.cluster.exists():
            return
        self.cluster.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = _user_for_root()
            os.chown(self.cluster, user.pw_uid, user.pw_gid)
        made = self._tool(
            "pg_basebackup",
            *("-D", str(self.cluster), "-h", "127.0.0.1", "-p", str(self.primary._port)),
            *("-U", "postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            env={"PGPASSWORD": self._admin_password},
            identity=self._identity(self.cluster),
        ).run(_TOOL_SECONDS)
        if made.returncode != 0:
            raise EmbeddedServerError(made.stderr.strip())


def freeze(server: Postgres) -> None:
    """Stop every process of it, as a black hole does: connections stay, and nobody answers."""
    _signal_all(server, signal.SIGSTOP)


def thaw(server: Postgres) -> None:
    _signal_all(server, signal.SIGCONT)


def _signal_all(server: Postgres, number: signal.Signals) -> None:
    backends = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, backends)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def follow_instead(server: Postgres, primary: Postgres) -> None:
    """Start a primary that was stopped in peace as a standby of the one that has taken over."""
    place = f"host=127.0.0.1 port={primary._port} user=postgres"
    with (server.cluster / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(f"primary_conninfo = '{place} password={primary._admin_password}'\n")
    (server.cluster / "standby.signal").touch()
    EmbeddedServer.start(server)
