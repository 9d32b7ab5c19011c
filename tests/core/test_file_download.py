"""A file as an answer: whole, in ranges, conditional; and readers that stall or leave."""

import asyncio

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from pricebook.core.file_download import attachment, file_response
from pricebook.core.files import Files
from pricebook.core.middleware import RequestMiddleware
from pricebook.core.problems import install_problems
from pricebook.core.rush import Rush
from pricebook.core.settings import ExportSettings, FileSettings, Settings
from pricebook.core.traffic import Traffic

# More than one piece of the store, and no whole number of them.
CONTENT = bytes(range(256)) * 10_000 + b"the end"
SIZE = len(CONTENT)


@pytest.fixture
def own(tmp_path):
    return Settings(
        files=FileSettings(url=tmp_path.as_uri()), exports=ExportSettings(stall_seconds=0.05)
    )


@pytest.fixture
async def files(own):
    files = Files(own)
    await write(files, CONTENT)
    await write(files, b"", "exports/empty.csv")
    return files


async def write(files, content, name="exports/list.csv"):
    async def chunks():
        yield content

    await files.write(name, chunks())


@pytest.fixture
def site(own, files):
    app = FastAPI()
    app.state.settings = own
    install_problems(app)
    traffic = Traffic()
    rush = Rush(own.http.max_concurrent_requests, traffic)
    app.add_middleware(RequestMiddleware, own.http, access_log=False, traffic=traffic, rush=rush)

    @app.get("/{name}")
    async def read(request: Request, name: str) -> Response:
        return await file_response(
            request, files, f"exports/{name}", media_type="text/csv", filename="prices.csv"
        )

    return app


@pytest.fixture
async def client(site):
    transport = httpx2.ASGITransport(app=site)
    async with httpx2.AsyncClient(transport=transport, base_url="http://files.test") as client:
        yield client


async def test_a_file_is_answered_whole_and_says_what_it_is(client):
    reply = await client.get("/list.csv")
    assert (reply.status_code, reply.content) == (200, CONTENT)
    assert reply.headers["content-length"] == str(SIZE)
    assert reply.headers["content-type"] == "text/csv"
    assert reply.headers["content-disposition"] == 'attachment; filename="prices.csv"'
    assert reply.headers["cache-control"] == "private"
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].startswith('"')


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("BYTES=10-19", 10, 20),
        ("bytes=2000000-", 2_000_000, SIZE),
        (f"bytes=5-{SIZE + 100}", 5, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE + 1}", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
async def test_a_range_is_answered_alone(client, asked, first, end):
    reply = await client.get("/list.csv", headers={"Range": asked})
    assert (reply.status_code, reply.content) == (206, CONTENT[first:end])
    assert reply.headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
    assert reply.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0"])
async def test_a_range_past_the_end_is_refused_with_the_size(client, asked):
    reply = await client.get("/list.csv", headers={"Range": asked})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{SIZE}"
    assert reply.json()["type"] == "/problems/range-not-satisfiable"


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=1²-3"],
)
async def test_ranges_that_are_many_or_make_no_sense_are_answered_whole(client, asked):
    reply = await client.get("/list.csv", headers={"Range": asked.encode()})
    assert (reply.status_code, reply.content) == (200, CONTENT)


async def test_a_digit_string_without_end_is_no_range(client):
    reply = await client.get("/list.csv", headers={"Range": f"bytes={'9' * 5_000}-"})
    assert reply.status_code == 200


async def test_an_empty_file_is_empty_and_has_no_first_byte(client):
    assert (await client.get("/empty.csv")).content == b""
    assert (await client.get("/empty.csv", headers={"Range": "bytes=-5"})).status_code == 200
    reply = await client.get("/empty.csv", headers={"Range": "bytes=0-"})
    assert (reply.status_code, reply.headers["content-range"]) == (416, "bytes */0")


async def test_a_range_of_another_file_than_before_is_answered_whole(client, files):
    etag = (await client.get("/list.csv")).headers["etag"]
    asked = {"Range": "bytes=0-1", "If-Range": etag}
    assert (await client.get("/list.csv", headers=asked)).status_code == 206
    dated = {**asked, "If-Range": "Sun, 22 Nov 2026 10:00:00 GMT"}
    assert (await client.get("/list.csv", headers=dated)).status_code == 200
    await write(files, b"another list of the same name")
    reply = await client.get("/list.csv", headers=asked)
    assert (reply.status_code, reply.content) == (200, b"another list of the same name")


async def test_who_has_the_file_already_is_told_so(client):
    etag = (await client.get("/list.csv")).headers["etag"]
    reply = await client.get("/list.csv", headers={"If-None-Match": etag})
    assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    assert "content-disposition" not in reply.headers
    other = await client.get("/list.csv", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200
    refused = await client.get("/list.csv", headers={"If-Match": '"other"'})
    assert refused.status_code == 412


async def test_head_tells_the_size_and_reads_nothing(client):
    reply = await client.head("/list.csv", headers={"Range": "bytes=0-1"})
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["content-length"] == str(SIZE)


async def test_a_file_that_is_not_there_is_not_found(client):
    reply = await client.get("/gone.csv")
    assert (reply.status_code, reply.json()["type"]) == (404, "/problems/file-expired")


async def test_a_store_that_cannot_answer_is_an_outage_and_says_when_to_come_back(client):
    reply = await client.get("/" + "x" * 300)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("prices-2026-11-22.csv.gz", 'attachment; filename="prices-2026-11-22.csv.gz"'),
        ('a "b"\r\nX: y.csv', "attachment; filename*=utf-8''a%20%22b%22%0D%0AX%3A%20y.csv"),
        ("preçios/..csv", "attachment; filename*=utf-8''pre%C3%A7ios%2F..csv"),
    ],
)
def test_a_name_to_save_it_under_says_no_more_than_a_name(name, said):
    assert attachment(name) == said


class Connection:
    """What a server gives an application, whose client reads as much as it likes."""

    def __init__(self, *, takes):
        self.takes = takes
        self.taken = 0
        self.is_aborted = False
        self.has_left = asyncio.Event()
        self.is_read = asyncio.Event()

    def scope(self):
        return {
            "type": "http",
            "method": "GET",
            "path": "/list.csv",
            "raw_path": b"/list.csv",
            "query_string": b"",
            "headers": [],
            "server": ("files.test", 80),
            "pricebook.abort": self.abort,
        }

    def abort(self):
        self.is_aborted = True

    async def receive(self):
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.taken += len(message.get("body", b""))
        if self.taken >= self.takes:
            self.is_read.set()
            await asyncio.Event().wait()


async def test_a_reader_that_takes_nothing_more_is_cut_off(site):
    client = Connection(takes=100_000)
    async with asyncio.timeout(5):
        await site(client.scope(), client.receive, client.send)
    assert client.is_aborted
    assert client.taken < SIZE


async def test_for_a_reader_that_leaves_nothing_more_is_read(site, own):
    site.state.settings = own.model_copy(update={"exports": ExportSettings(stall_seconds=60)})
    client = Connection(takes=100_000)
    async with asyncio.timeout(5):
        serving = asyncio.create_task(site(client.scope(), client.receive, client.send))
        await client.is_read.wait()
        client.has_left.set()
        await serving
    assert not client.is_aborted
    assert client.taken < SIZE
