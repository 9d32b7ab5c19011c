"""Progress and log over a real server: told while the job runs, and ended with it."""

import asyncio
import re
from uuid import uuid4

import httpx2
import orjson
import pytest
from sqlalchemy import text
from tests.conftest import until
from tests.jobs.conftest import wait_for_ever

from pricebook.core.database import open_database
from pricebook.jobs.run import JobRefused

_EVENT = re.compile(rb"event: (\w+)\ndata: ([^\n]+)\n\n")
SENTENCE = ("The file has no header.",)


def events(listener):
    return [(name.decode(), orjson.loads(data)) for name, data in _EVENT.findall(listener.body)]


def dechunked(listener):
    """The text of an answer whose pieces each hold whole lines."""
    return re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", listener.body).decode().removesuffix("\r\n")


def said(listener):
    return [line.partition(" ")[2] for line in dechunked(listener).splitlines() if line]


class Steps:
    """Work that goes a step further whenever it is let."""

    def __init__(self):
        self.begun = asyncio.Event()
        self._next = asyncio.Semaphore(0)
        self._ended = None

    def go(self):
        self._next.release()

    async def __call__(self, run):
        self.begun.set()
        for number in range(1, 4):
            run.progress("walking", number, 3)
            run.say(f"Step {number}.")
            await self._next.acquire()
        return {"steps": 3}


@pytest.fixture
def steps():
    return Steps()


async def test_progress_is_told_whenever_it_changes_until_the_end(
    server, editor, ask, working, steps
):
    job = await ask("walk")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/stream")
    await listener.until(lambda one: len(events(one)) == 1)
    async with working(walk=steps):
        for number in range(1, 4):
            await listener.until(lambda one, n=number: events(one)[-1][1]["done"] == n, 3)
            steps.go()
        await listener.until_ended(5)
    told = events(listener)
    assert told[0][0] == "progress"
    assert told[0][1]["status"] == "queued"
    walking = [one for name, one in told if one["phase"] == "walking"]
    assert [one["done"] for one in walking if one["done"]] == sorted(
        one["done"] for one in walking if one["done"]
    )
    assert [name for name, _one in told].count("end") == 1
    assert told[-1][0] == "end"
    assert (told[-1][1]["status"], told[-1][1]["result"]) == ("succeeded", {"steps": 3})
    assert told[-2] == ("progress", told[-1][1])
    assert listener.body.count(b"retry: ") == 2


async def test_a_stream_tells_what_the_job_is_by_itself(server, api, editor, ask):
    job = await ask("walk")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/stream")
    await listener.until(events)
    ((_name, told),) = events(listener)
    assert told == (await api.as_(editor).get(f"/v1/jobs/{job.id}")).json()
    head = bytes(listener.received.partition(b"\r\n\r\n")[0]).lower()
    assert b"content-type: text/event-stream" in head
    assert b"cache-control: no-store" in head


async def test_the_stream_of_a_job_that_is_over_ends_at_once(server, api, editor, ask):
    job = await ask("walk")
    await api.as_(editor).post(f"/v1/jobs/{job.id}/cancel")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/stream")
    await listener.until_ended(3)
    assert [name for name, _job in events(listener)] == ["progress", "end"]


async def test_lines_alone_are_no_progress(server, editor, ask, working):
    said_all = asyncio.Event()

    async def talk(run):
        for number in range(5):
            run.say(f"Line {number}.")
            await asyncio.sleep(0.3)
        said_all.set()
        await wait_for_ever(run)

    job = await ask("talk")
    async with working(talk=talk):
        listener = await server.open(editor, f"/v1/jobs/{job.id}/stream")
        await said_all.wait()
        assert len(events(listener)) <= 2


async def test_the_log_grows_until_the_job_ends(server, editor, ask, working, steps, read_log):
    job = await ask("walk")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/log")
    async with working(walk=steps):
        for number in range(1, 4):
            await listener.until(lambda one, n=number: f"Step {n}." in said(one), 3)
            steps.go()
        await listener.until_ended(5)
    assert said(listener) == ["Started.", "Step 1.", "Step 2.", "Step 3.", "Done."]
    assert said(listener) == await read_log(job)
    moments = [line.partition(" ")[0] for line in dechunked(listener).splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one) for one in moments)
    head = bytes(listener.received.partition(b"\r\n\r\n")[0]).lower()
    assert b"content-type: text/plain; charset=utf-8" in head


async def test_a_log_that_is_not_followed_ends_with_what_is_there(
    server, editor, ask, working, steps, read_log
):
    job = await ask("walk")
    nothing = await server.open(editor, f"/v1/jobs/{job.id}/log?follow=false")
    await nothing.until_ended(3)
    assert said(nothing) == []
    async with working(walk=steps):
        await until(lambda: _has(read_log, job, "Step 1."))
        listener = await server.open(editor, f"/v1/jobs/{job.id}/log?follow=false")
        await listener.until_ended(3)
        assert said(listener) == ["Started.", "Step 1."]


async def test_the_log_of_a_job_that_is_over_is_whole(server, editor, ask, working, ended):
    async def refuse(run):
        for number in range(1_200):
            run.say(f"Line {number}.\nIt goes on.")
        raise JobRefused(*SENTENCE)

    job = await ask("refuse")
    async with working(refuse=refuse):
        await ended(job)
    listener = await server.open(editor, f"/v1/jobs/{job.id}/log")
    await listener.until_ended(5)
    assert said(listener) == [
        "Started.",
        *(f"Line {number}. It goes on." for number in range(1_200)),
        "Failed: The file has no header.",
    ]


async def _has(read_log, job, line):
    return line in await read_log(job)


async def forgotten(server):
    """Wait until the process holds no stream, and looks at no job."""
    await until(lambda: not len(server.app.state.streams))
    await until(lambda: not server.app.state.job_follower._watched)


async def test_streams_end_by_age_and_by_leaving_and_are_forgotten(make_server_with, editor, ask):
    job = await ask("walk")
    server = await make_server_with(max_age_seconds=0.5)
    for path in ("stream", "log"):
        old = await server.open(editor, f"/v1/jobs/{job.id}/{path}")
        await old.until_ended(3)
        assert b"event: end" not in old.body
    await forgotten(server)
    server = await make_server_with()
    for path in ("stream", "log"):
        (await server.open(editor, f"/v1/jobs/{job.id}/{path}")).close()
    await forgotten(server)


@pytest.mark.parametrize("path", ["stream", "log"])
async def test_all_streams_share_one_room_and_end_with_the_process(
    make_server_with, editor, ask, path
):
    job = await ask("walk")
    server = await make_server_with(max_readers=2)
    url = f"/v1/jobs/{job.id}/{path}"
    opened = [await server.open(editor, url), await server.open(editor, url)]
    assert (await server.open(editor, url)).status == 503
    server.app.state.streams.end_all()
    for listener in opened:
        await listener.until_ended(2)
    await forgotten(server)


@pytest.mark.parametrize("path", ["stream", "log"])
async def test_whoever_is_shut_out_loses_them_within_a_second(server, api, editor, ask, path):
    job = await ask("walk")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/{path}")
    await api.as_(editor).delete("/v1/auth/token")
    await listener.until_ended(1)


@pytest.mark.parametrize("path", ["stream", "log"])
async def test_a_job_that_is_deleted_meanwhile_ends_its_streams(server, editor, ask, session, path):
    job = await ask("walk")
    listener = await server.open(editor, f"/v1/jobs/{job.id}/{path}")
    await session.delete(job)
    await session.commit()
    await listener.until_ended(2)


async def test_many_readers_hold_no_connection(server, editor, ask, settings):
    jobs = [await ask("walk") for _ in range(20)]
    listeners = [
        await server.open(editor, f"/v1/jobs/{job.id}/{path}")
        for job in jobs
        for path in ("stream", "log")
        for _ in range(3)
    ]
    assert {one.status for one in listeners} == {200}
    for listener in listeners:
        if b"event-stream" in listener.received:
            await listener.until(events)
    reads = server.app.state.database.reads

    def is_free():
        return reads._places._value == settings.database.read_pool_size

    await until(is_free)


async def cut_connections(settings):
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
    async with open_database(settings, "tests") as database, database.sessions() as session:
        await session.execute(text(f"{cut} AND datname = current_database()"))


async def test_streams_go_on_though_the_server_lost_its_connections(
    server, editor, ask, settings, working, steps
):
    job = await ask("walk")
    listeners = [
        await server.open(editor, f"/v1/jobs/{job.id}/{path}") for path in ("stream", "log")
    ]
    await cut_connections(settings)
    async with working(walk=steps):
        for _ in range(3):
            steps.go()
        for listener in listeners:
            await listener.until_ended(10)
    assert events(listeners[0])[-1][0] == "end"
    assert said(listeners[1])[-1] == "Done."


async def test_a_job_that_nobody_knows_is_no_stream(server, editor):
    for path in ("stream", "log"):
        assert (await server.open(editor, f"/v1/jobs/{uuid4()}/{path}")).status == 404


@pytest.mark.parametrize("path", ["stream", "log"])
async def test_who_asks_for_the_head_alone_waits_for_nothing(server, api, editor, ask, path):
    job = await ask("walk")
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    url = f"http://127.0.0.1:{server.port}/v1/jobs/{job.id}/{path}"
    async with httpx2.AsyncClient(timeout=3) as client:
        reply = await client.head(url, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/")
