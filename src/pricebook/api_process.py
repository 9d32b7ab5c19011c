"""One API process: uvicorn on a socket that its parent has opened."""

import gc
import resource
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pricebook.core.downloads import TRAILERS
from pricebook.core.logging import configure_logging
from pricebook.core.settings import Settings, load_settings
from pricebook.core.streaming import ABORT
from pricebook.main import create_app

# Longer than the idle time of the usual proxies (60 s), so that they close a connection first and
# never send a request into one that is being closed.
_KEEP_ALIVE_SECONDS = 75
# A page of a list makes thousands of objects that all die by themselves, with no cycle among them.
_GC_THRESHOLDS = (50_000, 20, 20)


def run(settings: Settings, listening: socket.socket) -> None:
    """Serve requests from the socket until SIGTERM or SIGINT."""
    server = make_server(create_app(settings), settings)
    _spare_the_collector()
    _lift_the_limit_of_files()
    server.run(sockets=[listening])


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Make the server of `app`."""
    proxies = [str(network) for network in settings.http.trusted_proxies]
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="on",
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.stop_seconds),
    )
    return _Server(config, app)


class _Cycle(RequestResponseCycle):
    """Sends trailers after a body, as ASGI's extension says; uvicorn knows of none."""

    has_trailers = False

    async def send(self, message: Any) -> None:  # noqa: ANN401 -- any message of ASGI
        if message["type"] == TRAILERS:
            self._write_trailers(message["headers"])
            message = {"type": "http.response.body"}
        elif message["type"] == "http.response.start":
            self.has_trailers = message.get("trailers", False)
        elif self.has_trailers:
            message = {**message, "more_body": True}
        await super().send(message)

    def _write_trailers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the chunks (RFC 9112, section 7.1); what is left to uvicorn is to write nothing."""
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        if not self.disconnected:
            self.transport.write(b"0\r\n%s\r\n" % lines)
        self.chunked_encoding = False
        self.has_trailers = False


class _Protocol(HttpToolsProtocol):
    """Lets the application cut a connection, which ASGI has no word for, and send trailers."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope = cast("dict[str, Any]", self.scope)
        scope[ABORT] = self.transport.abort
        scope["extensions"] = {TRAILERS: {}}

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # uvicorn makes it here, and takes no other class for it.
        self.cycle.__class__ = _Cycle


class _Server(uvicorn.Server):
    """Ends the streams when it is to stop, and does not wait for them as for other answers.

    A download gets half of the time to come to its end.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.streams.end_all()
        self._app.state.downloads.end_within(self._app.state.settings.stop_seconds / 2)
        await super().shutdown(sockets)


def _spare_the_collector() -> None:
    """Leave what lives as long as the process out of every search for garbage, and search less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _lift_the_limit_of_files() -> None:
    """Open as many streams as the machine allows: each is a file, and 1,024 is the usual limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit, and then refuses to have none.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Be an API process; the number of the inherited socket is the only argument."""
    settings = load_settings()
    configure_logging(settings.log)
    # `pricebook up` holds it back here until the database is ready (Service.hold).
    sys.stdin.buffer.read()
    run(settings, socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
