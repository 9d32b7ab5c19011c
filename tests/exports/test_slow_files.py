"""Readers of files that stall, leave and come back, over a real connection."""

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import text
from tests.conftest import until

from pricebook.core.clock import now
from pricebook.core.files import Files
from pricebook.core.principal import Principal, Role
from pricebook.jobs.service import NewJob, enqueue

# More than the buffers of a connection hold.
CONTENT = b"".join(b"SKU-%08d,12.5000\r\n" % number for number in range(1_000_000))


@pytest.fixture
async def path(session, settings, editor):
    """Where a large file of the editor's can be read, after `/v1/exports/`."""

    async def content():
        yield CONTENT

    asking = Principal(editor.id, Role.EDITOR, editor.id)
    job = await enqueue(session, asking, NewJob(kind="export_file", params={}, expected_seconds=1))
    job.status, job.finished_at, job.files = "succeeded", now(), [f"exports/{job.id}-1"]
    job.result = {
        "file": f"/v1/exports/{job.id}/file", "filename": "items.csv", "media_type": "text/csv",
        "expires_at": "2099-01-01T00:00:00+00:00", "role": "editor",
    }  # fmt: skip
    await Files(settings).write(job.files[0], content())
    await session.commit()
    return f"{job.id}/file"


async def rest_of(reader):
    """Read to the end of the connection, and no longer than the answer says."""
    left = int(reader.headers["content-length"])
    received = bytearray()
    while left and (piece := await reader._incoming.read(min(left, 65_536))):
        received += piece
        left -= len(piece)
    return bytes(received)


async def test_a_reader_that_stalls_is_cut_off(serve, editor, path):
    server = await serve(stall_seconds=0.3)
    reader = await server.export(editor, path)
    assert reader.status == 200
    await asyncio.sleep(1.5)
    with suppress(ConnectionError):
        assert len(await rest_of(reader)) < len(CONTENT)


async def test_one_that_reads_slowly_is_let_be_and_holds_no_connection_of_the_database(
    serve, editor, path, database
):
    server = await serve(stall_seconds=5)
    reader = await server.export(editor, path)
    began = b""
    for _ in range(20):
        began += await reader._incoming.read(65_536)
        await asyncio.sleep(0.05)
    busy = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state <> 'idle' AND pid <> pg_backend_pid()"
    )

    async def nobody_is_asked():
        async with database.sessions() as session:
            return not await session.scalar(busy)

    await until(nobody_is_asked)
    reader.headers["content-length"] = str(len(CONTENT) - len(began))
    assert began + await rest_of(reader) == CONTENT


async def test_who_was_cut_off_goes_on_where_they_were(serve, editor, path):
    server = await serve()
    first = await server.export(editor, path)
    begun = await first._incoming.readexactly(1_000_001)
    first.leave()
    asked = ("Range: bytes=1000001-", f"If-Range: {first.headers['etag']}")
    second = await server.export(editor, path, *asked)
    assert second.status == 206
    assert begun + await rest_of(second) == CONTENT


async def test_one_who_leaves_is_read_for_no_more(serve, editor, path):
    server = await serve(stall_seconds=60)
    before = len(asyncio.all_tasks())
    reader = await server.export(editor, path)
    await reader._incoming.readexactly(100_000)
    reader.leave()
    await until(lambda: len(asyncio.all_tasks()) <= before)
