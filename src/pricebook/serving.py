"""`pricebook serve`: API processes that share one listening socket."""

import errno
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import ip_address

from pricebook.core.mendable import MendableError
from pricebook.core.metrics import shared_folder
from pricebook.core.processes import Supervisor
from pricebook.core.settings import Settings
from pricebook.core.spawn import Child, Service

_BACKLOG = 2048
# What a process may take beyond its requests' time: to close connections and end.
_MARGIN_SECONDS = 1.5


class CannotListenError(MendableError):
    """The address is taken, or is none of this machine."""


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; while a process of ours is replaced, connections wait in it.

    Raises:
        CannotListenError: Another program uses the port, or the address is not ours.

    """
    with ExitStack() as undo:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise CannotListenError(_reason(host, port, error)) from error
        undo.pop_all()
        return listening


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program: "
            "stop it, or set PRICEBOOK_PORT to another port"
        )
    return f"cannot listen on {host} port {port}: {error.strerror}"


def url_of(listening: socket.socket) -> str:
    """Return the address that a client on this machine uses."""
    host, port = listening.getsockname()[:2]
    is_v6 = listening.family == socket.AF_INET6
    if ip_address(host).is_unspecified:
        host = "::1" if is_v6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if is_v6 else f"http://{host}:{port}"


def api_services(
    settings: Settings, listening: socket.socket, env: Mapping[str, str] | None = None
) -> list[Service]:
    """Describe the API processes."""
    child = Child(
        command=(sys.executable, "-m", "pricebook.api_process", str(listening.fileno())),
        pass_fds=(listening.fileno(),),
        env=env,
    )
    return [Service("api", child) for _ in range(settings.processes)]


def serve(settings: Settings) -> None:
    """Serve until told to stop, with a new process for each that ends.

    SIGHUP replaces all of them without losing a connection: what no process has taken yet waits in
    the socket that they share.
    """
    with (
        listen(settings.host, settings.port) as listening,
        shared_folder() as shared,
        Supervisor(rolls=True) as supervisor,
    ):
        services = api_services(settings, listening, {**os.environ, **shared})
        supervisor.add(*services, stopped_by_seconds=settings.stop_seconds + _MARGIN_SECONDS)
        supervisor.launch()
        supervisor.run()
        listening.close()
