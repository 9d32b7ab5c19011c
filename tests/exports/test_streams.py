"""How a streamed export ends: whole to its trailer, or cut; and what it holds meanwhile."""

import asyncio
import signal
import zlib

import pytest
import zstandard
from sqlalchemy import text, update
from tests.conftest import connected, until
from tests.exports.conftest import MANY, Reader
from tests.processes import ForkedApi

from pricebook.core.compression import negotiate
from pricebook.core.primary import primary_at
from pricebook.items.models import Item

ENCODINGS = ["identity", "zstd", "gzip"]


def unpacked(body, encoding):
    """Return what was packed; fail if the end is missing."""
    if encoding == "identity":
        return body
    unpacker = zstandard.ZstdDecompressor().decompressobj() if encoding == "zstd" else None
    unpacker = unpacker or zlib.decompressobj(wbits=31)
    found = unpacker.decompress(body)
    assert unpacker.eof
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_the_end_of_a_whole_export_says_how_many_rows_came(
    serve, editor, many_items, encoding
):
    server = await serve()
    reader = await server.export(editor, "items.csv?fields=sku", f"Accept-Encoding: {encoding}")
    assert reader.headers["trailer"] == "X-Row-Count"
    await reader.read()
    assert reader.is_whole
    assert reader.trailers == {"x-row-count": str(MANY)}
    lines = unpacked(reader.body, encoding).split(b"\r\n")
    assert lines == [b"sku", *(b'"SKU-%d"' % n for n in range(1, MANY + 1)), b""]


async def test_the_connection_is_good_for_another_request(serve, api, editor, make_item):
    await make_item(sku="A")
    server = await serve()
    token = api.tokens[editor.id]
    reader = await server.export(editor, "items.csv?fields=sku")
    while await reader.read_chunk():
        pass
    assert await reader._fields() == {"x-row-count": "1"}
    request = f"GET /v1/users/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    reader._outgoing.write(request.encode())
    assert await reader._incoming.readline() == b"HTTP/1.1 200 OK\r\n"
    reader.leave()


async def test_the_head_of_an_export(serve, editor, make_item):
    await make_item()
    server = await serve()
    for what, media_type in (
        ("items.csv", "text/csv; charset=utf-8; header=present"),
        ("items.jsonl", "application/jsonl"),
    ):
        reader = await (await server.export(editor, what)).read()
        assert reader.headers["content-type"] == media_type
        name, _, ending = what.partition(".")
        disposition = reader.headers["content-disposition"]
        assert disposition.startswith(f'attachment; filename="{name}-20')
        assert disposition.endswith(f'.{ending}"')
        assert reader.headers["vary"] == "Accept-Encoding, Authorization"
        assert reader.headers["cache-control"] == "no-store"
        assert reader.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in reader.headers
        assert "x-total-count" not in reader.headers


async def test_rows_are_counted_ahead_on_request(serve, editor, make_item):
    for sku in "ABC":
        await make_item(sku=sku, currency="EUR" if sku == "A" else "CHF")
    server = await serve()
    reader = await (await server.export(editor, "items.csv?count=exact&currency=CHF")).read()
    assert reader.headers["x-total-count"] == "2"
    assert reader.trailers["x-row-count"] == "2"


async def test_head_tells_the_head_and_takes_no_snapshot(serve, editor, many_items, under_way):
    server = await serve(at_once=1)
    reading = await server.export(editor)
    asked = await server.export(editor, "items.csv", "Accept-Encoding: gzip", method="HEAD")
    assert asked.status == 200
    assert asked.headers["content-encoding"] == "gzip"
    assert "items-" in asked.headers["content-disposition"]
    asked._outgoing.write_eof()
    assert await asked._incoming.read() == b""
    assert len(await under_way()) == 1
    reading.leave()


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("ZSTD;Q=0.2, GZip ; q=0.1", "zstd"),
        ("gzip;q=0.5, identity", "identity"),
        ("gzip;q=0, zstd;q=0", "identity"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("*;q=0", "identity"),
        ("identity;q=0", "identity"),
        ("br, deflate", "identity"),
        ("gzip;q=nonsense, zstd;q=7", "identity"),
    ],
)
def test_the_encoding_is_what_the_client_wants_most(asked, chosen):
    assert negotiate(asked) == chosen


async def test_an_export_is_of_one_moment(serve, editor, many_items, session):
    server = await serve()
    reader = await server.export(editor, "items.csv?count=exact")
    await reader.read_chunk()
    await session.execute(update(Item).values(name="Changed"))
    await session.execute(text("DELETE FROM items WHERE sku = 'SKU-3999'"))
    session.add(Item(sku="NEW", name="New", price=1, currency="EUR"))
    await session.commit()
    await reader.read()
    assert reader.trailers["x-row-count"] == reader.headers["x-total-count"] == str(MANY)
    assert reader.body.count(b'"Hammer"') == MANY
    assert b"Changed" not in reader.body
    assert b"NEW" not in reader.body


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_one_that_fails_midway_never_ends_neatly(
    serve, editor, many_items, session, under_way, urls, worker_name, encoding
):
    # So mixed that much is left to send, however it is packed.
    mixed = "(SELECT string_agg(md5(sku || n), '') FROM generate_series(1, 150) AS n)"
    await session.execute(text(f"UPDATE items SET notes = {mixed}"))
    await session.commit()
    server = await serve()
    reader = await server.export(editor, "items.csv", f"Accept-Encoding: {encoding}")
    await reader.read_chunk()
    (held,) = await under_way()
    async with connected(urls[f"database_{worker_name}"]) as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", held["pid"])
    await reader.read()
    assert not reader.is_whole
    assert reader.trailers == {}
    if encoding != "identity":
        with pytest.raises((AssertionError, zlib.error, zstandard.ZstdError)):
            unpacked(reader.body, encoding)
    await until(lambda: not len(server.app.state.downloads))


async def test_one_that_cannot_begin_is_a_problem(serve, editor):
    server = await serve()
    pool = server.app.state.downloads.pool.primary
    pool._primary = primary_at("postgresql+asyncpg://nobody:x@127.0.0.1:1/nothing")
    problem = await (await server.export(editor)).read_problem()
    assert problem["status"] == 503


async def test_past_so_many_at_once_comes_503_at_once(serve, editor, many_items, under_way):
    server = await serve(at_once=2)
    reading = [await server.export(editor) for _ in range(2)]
    refused = await server.export(editor)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/problem+json"
    reading[0].leave()
    await until(lambda: len(server.app.state.downloads) == 1)
    assert (await server.export(editor)).status == 200


async def test_150_abandoned_midway_leave_nothing_behind(serve, editor, many_items, under_way):
    server = await serve(at_once=10)
    for number in range(15):
        encoding = ENCODINGS[number % 3]
        readers = await asyncio.gather(
            *(server.export(editor, "items.csv", f"Accept-Encoding: {encoding}") for _ in range(10))
        )
        assert {reader.status for reader in readers} == {200}
        for reader in readers:
            reader.leave()
        await until(lambda: not len(server.app.state.downloads))
    pool = server.app.state.downloads.pool.primary
    assert pool._free == 10

    async def is_at_rest():
        return not await under_way()

    await until(is_at_rest)
    assert (await (await server.export(editor)).read()).is_whole


async def test_a_reader_that_stalls_is_cut_off_and_frees_its_snapshot(
    serve, editor, many_items, under_way
):
    server = await serve(stall_seconds=0.3)
    reader = await server.export(editor)
    assert reader.status == 200

    async def is_free():
        return not await under_way()

    await until(is_free)
    assert not (await reader.read()).is_whole


async def test_an_export_that_takes_too_long_is_cut_off(serve, editor, many_items, under_way):
    server = await serve(max_minutes=0.5 / 60)
    reader = await server.export(editor)
    await until(lambda: not len(server.app.state.downloads))
    assert not (await reader.read()).is_whole


async def test_one_that_is_being_read_slowly_is_let_be(serve, editor, many_items):
    server = await serve(stall_seconds=1)
    reader = await server.export(editor)
    for _ in range(30):
        await reader.read_chunk()
        await asyncio.sleep(0.05)
    assert (await reader.read()).is_whole


async def test_a_process_that_is_to_stop_ends_within_ten_seconds(
    settings, api, editor, many_items, under_way
):
    process = ForkedApi(settings.model_copy(update={"stop_seconds": 2}))
    process.start()
    port = int(process.url.rpartition(":")[2])
    try:
        reader = await Reader.open(port, "/v1/exports/items.csv", api.tokens[editor.id])
        assert len(await under_way()) == 1
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10)
        assert process.exit_code == -signal.SIGTERM
        assert not (await reader.read()).is_whole
        assert not await under_way()
    finally:
        process.close()
