"""The worker's port, for those who watch over it: what it counts, and that it lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hmac import compare_digest

from aiohttp import web

from pricebook.core.metrics import MEDIA_TYPE, exposition
from pricebook.core.operating_groups import MetricsSettings


@asynccontextmanager
async def open_port(settings: MetricsSettings) -> AsyncIterator[None]:
    """Answer at the port of the settings, if they name one."""
    if not settings.worker_port:
        yield
        return
    application = web.Application()
    application.add_routes(
        [web.get("/metrics", _Metrics(settings)), web.get("/health/live", _live)]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.worker_host, settings.worker_port).start()
        yield
    finally:
        await runner.cleanup()


class _Metrics:
    """Tells what this process has counted."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._token = settings.token

    async def __call__(self, request: web.Request) -> web.Response:
        if self._token is not None:
            wanted = f"Bearer {self._token.get_secret_value()}".encode()
            if not compare_digest(request.headers.get("Authorization", "").encode(), wanted):
                raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return web.Response(body=exposition(), headers={"Content-Type": MEDIA_TYPE})


async def _live(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"}, headers={"Cache-Control": "no-store"})
