"""What the embedded servers share: a folder, a port and secrets that last, one child process."""

import json
import os
import secrets
import signal
import socket
import time
from abc import abstractmethod
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom

from pricebook.core.folder import take_folder, write_private
from pricebook.core.mendable import MendableError
from pricebook.core.spawn import ManagedProcess

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ATTEMPTS = 6
_LOG_BYTES = 16 * 1024 * 1024
# Below the range that outgoing connections take their ports from (32768 and up on Linux), so
# that a port stays ours while its server is being replaced.
_PORTS = range(20_000, 32_000)


class EmbeddedServerError(MendableError):
    """An embedded server cannot run."""


class EmbeddedServer(ManagedProcess):
    """A server in `data_dir/<name>`, listening on 127.0.0.1 behind a password."""

    stop_signal: signal.Signals

    def __init__(self, data_dir: Path) -> None:
        """Prepare a server in `data_dir`; nothing is touched before it starts."""
        super().__init__()
        self.folder = data_dir.absolute() / self.name
        self.log = self.folder / "server.log"
        self._lock: int | None = None
        self._port = 0
        self._password = ""
        self._admin_password = ""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included."""

    def start(self) -> None:
        """Start and wait until clients are served; stops what an earlier run left behind."""
        for attempt in range(1, _ATTEMPTS + 1):
            self.launch()
            if self._becomes_ready():
                return
            self.stop()
            # Another program was faster to the port, or the last of a killed server lingers.
            self._port = 0
            time.sleep(0.2 * attempt)
        message = f"{self.name} does not start; its log {self.log} ends with:\n{self._log_tail()}"
        raise EmbeddedServerError(message)

    def launch(self) -> None:
        """Start without waiting, on the port it had before if this is a replacement."""
        # A process that was killed this moment takes another to end.
        if not self.has_stopped(1):
            return
        self._take_folder()
        self._stop_leftover()
        if not self._port:
            self._recall()
        self._prepare()
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch(0o600)
        super().launch()

    def stop(self, timeout_seconds: float = _STOP_SECONDS) -> None:
        """Ask it to stop, kill it when the time is up, and let go of the folder."""
        self.ask_to_stop()
        if not self.has_stopped(timeout_seconds):
            self.kill()
            self.has_stopped(timeout_seconds)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the running process serves clients."""

    @abstractmethod
    def _leftover(self) -> int | None:
        """Find the pid of a server that an earlier run left behind in this folder."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the process needs to find in its folder."""

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            if self.is_ready():
                return True
            time.sleep(0.02)
        return False

    def _take_folder(self) -> None:
        if self._lock is None:
            # Root's PostgreSQL runs as another user, who has to pass through to its own part.
            mode = 0o711 if os.geteuid() == 0 else 0o700
            self.folder.mkdir(mode=mode, parents=True, exist_ok=True)
            self._lock = take_folder(self.folder)

    def _stop_leftover(self) -> None:
        pid = self._leftover()
        if pid is None or self.is_alive():
            return
        for sent in (self.stop_signal, signal.SIGKILL):
            os.kill(pid, sent)
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline:
                if self._leftover() != pid:
                    return
                time.sleep(0.05)

    def _recall(self) -> None:
        """Read port and secrets of earlier runs; make new ones where there are none or taken."""
        file = self.folder / "secrets.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        self._password = known.get("password") or secrets.token_urlsafe(24)
        self._admin_password = known.get("admin_password") or secrets.token_urlsafe(24)
        self._port = known.get("port") or _free_port()
        if not _is_free(self._port):
            self._port = _free_port()
        kept = {
            "port": self._port,
            "password": self._password,
            "admin_password": self._admin_password,
        }
        if kept != known:
            write_private(file, json.dumps(kept))

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])


def package_folder(package: str) -> Path:
    """Where a wheel is installed, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        message = f"there is no {package}: run `make up`, or install pricebook[embedded]"
        raise EmbeddedServerError(message)
    return Path(spec.origin).parent


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    return next(port for port in SystemRandom().sample(_PORTS, len(_PORTS)) if _is_free(port))
