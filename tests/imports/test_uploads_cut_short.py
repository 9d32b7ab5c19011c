"""Uploads that come to no end, to an API process of their own: nothing of them counts."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select
from tests.conftest import until
from tests.processes import ForkedApi

from pricebook.core.files import FileMissingError, Files
from pricebook.core.settings import FileSettings, ImportSettings, Settings
from pricebook.jobs.models import Job

# More than what is held in memory until it is written.
BEGINNING = b"x" * 12 * 1024 * 1024


@pytest.fixture
def own(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    changes = {
        "files": FileSettings(url=tmp_path.as_uri()),
        "imports": ImportSettings(stall_seconds=getattr(request, "param", 30)),
        "stop_seconds": 1,
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def server(own: Settings) -> Iterator[ForkedApi]:
    running = ForkedApi(own)
    running.start()
    yield running
    running.close()


@pytest.fixture
def connection(server: ForkedApi, api, editor) -> Iterator[socket.socket]:
    """A connection on which an upload has begun."""
    address = urlsplit(server.url)
    lines = (
        "POST /v1/imports/items HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {api.tokens[editor.id]}",
        "Content-Type: text/csv",
        "Content-Length: 100000000",
        "",
        "",
    )
    with socket.create_connection((address.hostname, address.port), timeout=10) as opened:
        opened.sendall("\r\n".join(lines).encode())
        yield opened


def lie_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def send_beginning(connection: socket.socket, folder: Path) -> None:
    await asyncio.to_thread(connection.sendall, BEGINNING)
    await until(lambda: lie_in(folder))


async def test_a_killed_process_leaves_no_file_that_counts(
    server, connection, own, tmp_path, session
):
    await send_beginning(connection, tmp_path)
    server.kill()
    (left,) = lie_in(tmp_path)
    assert "#" in left.name
    with pytest.raises(FileMissingError):
        await Files(own).find(str(left.relative_to(tmp_path)).partition("#")[0])
    assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_a_process_that_is_told_to_stop_leaves_nothing(server, connection, tmp_path, session):
    await send_beginning(connection, tmp_path)
    server.send(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait, 10)
    assert lie_in(tmp_path) == []
    assert await session.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize("own", [0.3], indirect=True)
async def test_a_client_that_stalls_is_told_and_cut_off(server, connection, tmp_path):
    await send_beginning(connection, tmp_path)
    answer = await asyncio.to_thread(read_to_end, connection)
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:200]
    assert b"/problems/upload-stalled" in answer
    assert lie_in(tmp_path) == []


def read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    while piece := connection.recv(65_536):
        answer += piece
    return answer
