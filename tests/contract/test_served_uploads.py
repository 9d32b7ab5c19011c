"""Uploads to a real API process: what it holds of them, and what is left when they break off."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from sqlalchemy import func, select
from tests.conftest import until
from tests.contract.conftest import Served

from pricebook.jobs.models import Job

MIB = 1024 * 1024
PATH = "/v1/imports/items?mode=dry-run"
ROW = b"SKU-%08d,Hammer with a handle of ash,12.5000,EUR\r\n"
FORM_HEAD = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'


async def rows(mebibytes: int) -> AsyncIterator[bytes]:
    yield b"sku,name,price,currency\r\n"
    block = b"".join(ROW % number for number in range(MIB // len(ROW % 0)))
    for _ in range(mebibytes):
        yield block


async def form(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield FORM_HEAD
    async for chunk in content:
        yield chunk
    yield b"\r\n--xx--\r\n"


@pytest.fixture
def folder(settings) -> Path:
    return Path(unquote(urlsplit(settings.files.url or "").path)) / "imports"


@pytest.fixture
async def client(served: Served, api, editor):
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}", "Content-Type": "text/csv"}
    async with httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=60) as opened:
        yield opened


@pytest.mark.parametrize(
    ("wrap", "headers"),
    [
        (aiter, {}),
        (aiter, {"Idempotency-Key": "a-large-one"}),
        (form, {"Content-Type": "multipart/form-data; boundary=xx"}),
    ],
    ids=["body", "with a key", "form"],
)
async def test_a_large_file_is_never_held(served, client, folder, session, wrap, headers):
    assert (await client.post(PATH, content=rows(1))).status_code == 202
    before = served.peak_memory_kib()
    reply = await client.post(PATH, content=wrap(rows(100)), headers=headers)
    assert reply.status_code == 202, reply.text
    assert served.peak_memory_kib() - before < 20 * 1024
    job = await session.get_one(Job, reply.json()["id"])
    stored = folder.parent / job.params["file"]
    assert stored.stat().st_size == job.params["size"] > 99 * MIB
    stored.unlink()


async def test_a_bomb_is_not_unpacked_by_the_api(served, client):
    bomb = gzip.compress(bytes(200 * MIB))
    before = served.peak_memory_kib()
    headers = {"Content-Encoding": "gzip"}
    assert (await client.post(PATH, content=bomb, headers=headers)).status_code == 202
    assert served.peak_memory_kib() - before < 20 * 1024


def head(api, editor, *more: bytes) -> bytes:
    token = f"Authorization: Bearer {api.tokens[editor.id]}".encode()
    lines = (b"POST /v1/imports/items HTTP/1.1", b"Host: x", b"Content-Type: text/csv", token)
    return b"\r\n".join((*lines, *more, b"", b""))


def connect(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


async def test_a_client_that_leaves_midway_leaves_nothing(
    served, api, editor, folder, session, client
):
    assert (await client.post(PATH, content=rows(1))).status_code == 202
    before = sorted(folder.iterdir())
    with connect(served) as connection:
        connection.sendall(head(api, editor, b"Content-Length: 100000000"))
        await asyncio.to_thread(connection.sendall, b"x" * 20 * MIB)
        # Its first parts have been written.
        await until(lambda: len(list(folder.iterdir())) > len(before))
    await until(lambda: sorted(folder.iterdir()) == before)
    assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_what_is_refused_need_not_be_sent(served, api, editor, viewer):
    """Nothing of the body is sent: a server that waited for it would not answer."""
    large = b"Content-Length: 100000000"
    for asked, status in (
        (head(api, editor, b"Content-Length: 99999999999"), b"413"),
        (head(api, viewer, large), b"403"),
        (head(api, editor, large).replace(b"text/csv", b"text/html"), b"415"),
        (head(api, editor, large).replace(b"items HTTP", b"items?mode=x HTTP"), b"422"),
    ):
        with connect(served) as connection:
            connection.sendall(asked.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            answer = await asyncio.to_thread(connection.recv, 65_536)
            assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
