"""The real PgBouncer in transaction mode, before a database of the tests."""

import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.proxies import free_port
from tests.tools import needed

_CONFIGURATION = """\
[databases]
{name} = host={host} port={port} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
query_wait_timeout = 5
server_login_retry = 1
log_connections = 0
log_disconnections = 0
"""


class PgBouncer:
    """It lends `size` connections to the database of `url` to whoever comes."""

    def __init__(self, folder: Path, url: str, size: int) -> None:
        self._program = needed("pgbouncer")
        self.port = free_port()
        self._folder = folder
        parts = urlsplit(url)
        user, _, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{self.port}").geturl()
        self._configuration = folder / "pgbouncer.ini"
        self._configuration.write_text(
            _CONFIGURATION.format(
                name=parts.path.removeprefix("/"),
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                password=parts.password,
                own_port=self.port,
                size=size,
            )
        )

    def start(self) -> None:
        # It refuses to run as root, and needs no file that it has not been handed.
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        with self._configuration.open() as handed, (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "/dev/stdin"],
                stdin=handed,
                stdout=log,
                stderr=log,
                user=user,
            )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise TimeoutError((self._folder / "log").read_text())

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)
        self._process.wait(10)
