"""A request too many is refused at its connection, and in the words of any other refusal."""

import asyncio
import email
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.conftest import until
from tests.exports.conftest import serving

from pricebook.core.browser_headers import SECURITY_HEADERS
from pricebook.core.rush import Rush
from pricebook.core.settings import HttpSettings
from pricebook.core.traffic import Traffic

SHOP = "https://shop.example.com"
# Their answers, of a kilobyte each, are far more than the system's own buffers hold.
UNREAD = 20_000
RECEIVE_BYTES = 65_536
UNREAD_BYTES = 8_000_000
GET = b"GET /v1/items HTTP/1.1\r\nHost: x\r\n"


class Client:
    """One connection, byte by byte."""

    def __init__(self, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def send(self, data: bytes) -> None:
        self._outgoing.write(data)

    async def answer(self, *, has_body: bool = True):
        """Return the status, the fields and the body of the next answer."""
        head = await asyncio.wait_for(self._incoming.readuntil(b"\r\n\r\n"), 10)
        status, _, lines = head.partition(b"\r\n")
        fields = email.message_from_bytes(lines)
        length = int(fields["content-length"]) if has_body else 0
        return int(status.split()[1]), fields, await self._incoming.readexactly(length)

    async def is_closed(self) -> bool:
        return await asyncio.wait_for(self._incoming.read(), 10) == b""

    def close(self) -> None:
        self._outgoing.close()


@pytest.fixture
async def full(settings, api) -> AsyncIterator:
    """A server that has as much under way as it may, by its own count."""
    own = HttpSettings(max_concurrent_requests=2, cors_origins=(SHOP,))
    async with serving(settings.model_copy(update={"http": own}), api) as server:
        server.app.state.traffic.under_way = 2
        yield server
        server.app.state.traffic.under_way = 0


@asynccontextmanager
async def connected(server) -> AsyncIterator[Client]:
    own = socket.create_connection(("127.0.0.1", server.port))
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    client = Client(*await asyncio.open_connection(sock=own, limit=RECEIVE_BYTES))
    try:
        yield client
    finally:
        client.close()


async def test_it_says_when_to_come_back_and_the_connection_goes_on(full):
    async with connected(full) as client:
        client.send(GET + b"X-Request-ID: the-till-asks-1\r\n\r\n")
        status, fields, body = await client.answer()
        assert status == 503
        assert int(fields["retry-after"]) >= 1
        assert fields["content-type"] == "application/problem+json"
        assert fields["cache-control"] == "no-store"
        assert fields["x-request-id"] == json.loads(body)["request_id"] == "the-till-asks-1"
        assert fields["date"]
        assert fields["connection"] is None
        for name, value in SECURITY_HEADERS:
            assert fields[name.decode()] == value.decode()
        full.app.state.traffic.under_way = 1
        client.send(GET + b"\r\n")
        assert (await client.answer())[0] == 401
        await until(lambda: full.app.state.traffic.under_way == 1)


async def test_what_watches_over_it_is_answered(full):
    async with connected(full) as client:
        for path in (b"/ping", b"/health/live"):
            client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await client.answer())[0] == 200
    await until(lambda: full.app.state.traffic.under_way == 2)


async def test_a_body_is_passed_over(full):
    async with connected(full) as client:
        client.send(b"POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nGET ")
        assert (await client.answer())[0] == 503
        client.send(b"/x H" + GET + b"\r\n")
        assert (await client.answer())[0] == 503


async def test_head_gets_no_body(full):
    async with connected(full) as client:
        client.send(b"HEAD /v1/items HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
        status, fields, _ = await client.answer(has_body=False)
        assert (status, int(fields["content-length"]) > 0) == (503, True)
        assert (await client.answer())[0] == 503


@pytest.mark.parametrize(
    "sent",
    [b"GET /v1/items HTTP/1.0\r\nHost: x\r\n\r\n", GET + b"Connection: close\r\n\r\n"],
    ids=["HTTP/1.0", "asked to close"],
)
async def test_a_last_answer_says_so_and_closes(full, sent):
    async with connected(full) as client:
        client.send(sent)
        status, fields, _ = await client.answer()
        assert (status, fields["connection"]) == (503, "close")
        assert await client.is_closed()


async def test_a_page_of_another_origin_may_read_why(full):
    async with connected(full) as client:
        client.send(GET + b"Origin: %s\r\n\r\n" % SHOP.encode())
        status, fields, _ = await client.answer()
        assert (status, fields["access-control-allow-origin"]) == (503, SHOP)


async def test_whoever_asks_and_does_not_read_is_waited_for(full):
    """What is written to it and not read would fill the memory."""
    async with connected(full) as client:
        client.send((GET + b"\r\n") * UNREAD)
        await until(lambda: full.connections)
        (connection,) = full.connections
        await until(lambda: connection.flow.write_paused and connection.flow.read_paused)
        assert connection.transport.get_write_buffer_size() < UNREAD_BYTES
        statuses = [(await client.answer())[0] for _ in range(UNREAD)]
    assert set(statuses) == {503}


def test_a_place_is_taken_where_a_request_comes_in():
    traffic = Traffic()
    rush = Rush(2, traffic)
    assert [rush.admits("/v1/items") for _ in range(3)] == [True, True, False]
    assert traffic.under_way == 2
    assert rush.admits("/health/live")
