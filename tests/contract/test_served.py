"""A real API process against what only a network can send."""

import asyncio
import gzip
import socket
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.contract.conftest import Served
from tests.contract.operations import whole_item

MIB = 1024 * 1024


@pytest.fixture
async def client(served: Served, api, editor):
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    async with httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=60) as opened:
        yield opened


def send(served: Served, *pieces: bytes, until: float = 10) -> bytes:
    """Write raw bytes, and return all that comes back until the server closes."""
    address = urlsplit(served.url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=until) as connection:
        for piece in pieces:
            connection.sendall(piece)
        while piece := connection.recv(65_536):
            received += piece
    return received


async def test_a_body_of_one_gib_is_refused_and_never_held(served, client):
    async def gibibyte():
        for _ in range(1024):
            yield b"x" * MIB

    headers = {"Content-Type": "application/json"}
    await client.get("/v1/items")
    before = served.peak_memory_kib()
    reply = await client.post("/v1/items", content=gibibyte(), headers=headers)
    assert reply.status_code == 413
    assert reply.headers["content-type"] == "application/problem+json"
    headers["Content-Length"] = str(1024 * MIB)
    reply = await client.post("/v1/items", content=gibibyte(), headers=headers)
    assert reply.status_code == 413
    assert served.peak_memory_kib() - before < 20 * 1024


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(served):
    """Nothing of it is sent: a server that waited for it would not answer."""
    for expect in (b"", b"Expect: 100-continue\r\n"):
        lines = b"Host: x\r\nConnection: close\r\nContent-Length: 1073741824\r\n" + expect
        head = b"POST /v1/items HTTP/1.1\r\n" + lines + b"\r\n"
        answer = await asyncio.to_thread(send, served, head)
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]


async def test_a_gzip_bomb_is_not_unpacked(served, client):
    bomb = gzip.compress(b"[" + b" " * (200 * MIB) + b"]")
    assert len(bomb) < MIB
    before = served.peak_memory_kib()
    for path in ("/v1/items", "/v1/items/batch", "/v1/auth/token"):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        reply = await client.post(path, content=bomb, headers=headers)
        assert reply.status_code == 415
    assert served.peak_memory_kib() - before < 20 * 1024


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/items?q=" + b"x" * 1_000_000,
        b"/v1/items?\xff\xfe=\xff",
        b"/items?\xff\xfe=\xff",
        b"/v1/items/by-sku/" + b"%FF" * 10_000,
        b"/items/by-sku/%0d%0aX-Injected:%201",
        b"/v1/users/%00",
        b"//evil.example.com/items",
        b"/items\\..\\..\\etc",
    ],
    ids=lambda target: repr(target[:40]),
)
async def test_no_target_breaks_the_server(served, target):
    head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await asyncio.to_thread(send, served, head)
    status = int(answer.split(b" ", 2)[1])
    assert 300 <= status < 500, answer[:500]
    assert b"\r\nx-injected" not in answer.lower()
    assert b"\r\nlocation: //" not in answer.lower()


async def test_the_server_says_nothing_of_what_it_is_made_of(served, client):
    reply = await client.get("/ping")
    assert "server" not in reply.headers
    assert "x-powered-by" not in reply.headers


async def test_an_answered_write_can_be_read_at_once(client):
    new = whole_item(None)
    made = await client.post("/v1/items", json=new)
    assert made.status_code == 201
    read = await client.get(made.headers["location"])
    assert read.json() == made.json()
    assert {name: read.json()[name] for name in new} == new
