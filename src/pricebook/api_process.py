"""One API process: uvicorn on a socket that its parent has opened."""

import asyncio
import gc
import math
import resource
import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from pricebook.core.connections import Connection, Connections
from pricebook.core.logging import configure_logging
from pricebook.core.settings import Settings, load_settings
from pricebook.core.spawn import say_ready
from pricebook.main import create_app

# Longer than the idle time of the usual proxies (60 s), so that they close a connection first and
# never send a request into one that is being closed.
_KEEP_ALIVE_SECONDS = 75
# uvicorn ticks ten times a second.
_TICKS_PER_LOOK = 10
_TICK_SECONDS = 0.1
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
        http=Connection,
        ws="none",
        lifespan="on",
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    return _Server(config, app)


class _Server(uvicorn.Server):
    """Stops so that nobody notices: it is taken out of use first, and then comes to its end.

    Streams end then, and are not waited for as other answers are. A download gets half of the time
    that is left to come to its end.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.server_state = self._connections = Connections(app.state.rush)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_LOOK == 0:
            self._connections.cut_slow(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self._app.state
        state.health.withdraw()
        self._connections.drain()
        drain_seconds = min(state.settings.drain_seconds, state.settings.stop_seconds / 2)
        await self._serve_on(drain_seconds)
        left_seconds = state.settings.stop_seconds - drain_seconds
        self.config.timeout_graceful_shutdown = math.ceil(left_seconds)
        state.streams.end_all()
        state.downloads.end_within(left_seconds / 2)
        await super().shutdown(sockets)

    async def _serve_on(self, seconds: float) -> None:
        """Go on, with the right time in each answer; a second signal ends it."""
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until and not self.force_exit:
            await asyncio.sleep(_TICK_SECONDS)
            await self.on_tick(0)


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
