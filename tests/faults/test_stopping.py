"""How an API process stops: taken out of use first, then in good order, and in time."""

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from signal import SIGTERM
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.conftest import until
from tests.processes import ForkedApi

from pricebook.core.settings import Settings, StreamSettings

DRAIN_SECONDS = 1.0


@pytest.fixture
def server(settings: Settings, start: Callable[..., ForkedApi]) -> ForkedApi:
    """One that has time to be taken out of use, and streams that last."""
    changes = {"drain_seconds": DRAIN_SECONDS, "stop_seconds": 4, "stream": StreamSettings()}
    return start(ForkedApi, settings.model_copy(update=changes))


@pytest.fixture
async def client(server: ForkedApi):
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as opened:
        assert (await opened.get("/health/ready")).status_code == HTTPStatus.OK
        yield opened


def raw(server: ForkedApi, sent: bytes) -> socket.socket:
    """A connection that has sent so much."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    connection.sendall(sent)
    return connection


async def test_a_stopping_process_is_not_ready_but_alive_and_serves(server, client):
    server.send(SIGTERM)
    began = time.monotonic()

    async def is_withdrawn():
        return (await client.get("/health/ready")).status_code == HTTPStatus.SERVICE_UNAVAILABLE

    await until(is_withdrawn, DRAIN_SECONDS)
    ready = (await client.get("/health/ready")).json()
    assert [part["name"] for part in ready["parts"]] == ["process"]
    answers = 0
    while time.monotonic() < began + DRAIN_SECONDS * 0.9:
        live = await client.get("/health/live")
        assert live.status_code == HTTPStatus.OK
        assert live.headers["connection"] == "close"
        answers += 1
    assert answers > 1
    assert await asyncio.to_thread(server.wait)
    assert time.monotonic() - began < DRAIN_SECONDS + 1.5


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "an idle connection"],
)
async def test_no_half_sent_request_holds_it_up(server, client, sent):
    with raw(server, sent):
        await asyncio.sleep(0.1)
        server.send(SIGTERM)
        assert await asyncio.to_thread(server.wait, 6)
