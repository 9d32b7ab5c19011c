"""Files appear whole or not at all, however their writing ends; and what is left over is found."""

import asyncio
import os
import time
from contextlib import aclosing
from datetime import timedelta

import pytest

from pricebook.core.files import FileMissingError, Files, FilesAwayError
from pricebook.core.settings import FileSettings, Settings

# More than one part of an upload.
BLOCK, BLOCKS = b"0123456789abcdef" * 65_536, 12
DAY = timedelta(days=1)


@pytest.fixture
def files(tmp_path):
    return Files(Settings(files=FileSettings(url=tmp_path.as_uri())))


def all_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


async def blocks():
    for _ in range(BLOCKS):
        yield BLOCK


async def whole(files, name, *span):
    return b"".join([piece async for piece in files.read(name, *span)])


async def test_what_is_written_can_be_read_whole_and_in_parts(files):
    await files.write("exports/a.csv", blocks())
    content = BLOCK * BLOCKS
    assert await files.size("exports/a.csv") == len(content)
    assert await whole(files, "exports/a.csv") == content
    assert await whole(files, "exports/a.csv", 1_048_000, 2_000_000) == content[1_048_000:3_048_000]
    assert await whole(files, "exports/a.csv", len(content) - 3, 100) == content[-3:]
    assert await whole(files, "exports/a.csv", len(content)) == b""


async def test_nothing_is_a_file_too(files):
    async def nothing():
        for block in ():
            yield block

    await files.write("exports/empty", nothing())
    assert (await files.size("exports/empty"), await whole(files, "exports/empty")) == (0, b"")


async def test_a_file_that_is_not_there_is_missing_and_as_good_as_deleted(files):
    for ask in (files.find, files.size, lambda name: whole(files, name)):
        with pytest.raises(FileMissingError):
            await ask("exports/none")
    await files.delete(["exports/none", "exports/neither"])


async def test_should_its_bytes_break_off_there_is_no_file(files, tmp_path):
    async def breaking():
        yield BLOCK * 6
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await files.write("exports/a.csv", breaking())
    assert all_in(tmp_path) == []


@pytest.mark.parametrize("after", [1, 7])
async def test_cancelled_at_any_block_it_leaves_nothing_and_lets_go_of_its_source(
    files, tmp_path, after
):
    reached, is_closed = asyncio.Event(), asyncio.Event()

    async def slow():
        try:
            for _ in range(after):
                yield BLOCK
            reached.set()
            await asyncio.sleep(60)
        finally:
            is_closed.set()

    source = slow()
    before = asyncio.all_tasks()
    writing = asyncio.create_task(files.write("exports/a.csv", source))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert is_closed.is_set()
    async with aclosing(source):
        pass
    assert asyncio.all_tasks() <= before | {writing}
    assert all_in(tmp_path) == []


async def test_a_store_that_takes_nothing_says_so_and_stops_its_source(tmp_path):
    (tmp_path / "exports").write_text("a file where a folder should be")
    files = Files(Settings(files=FileSettings(url=tmp_path.as_uri())))
    with pytest.raises(FilesAwayError):
        await files.write("exports/a.csv", blocks())


async def test_another_file_of_the_same_name_is_not_mixed_with_the_one_being_read(files):
    await files.write("exports/a.csv", blocks())
    stored = await files.find("exports/a.csv")
    pieces = files.pieces(stored, 0, stored.size)
    await anext(pieces)

    async def other():
        yield b"x" * stored.size

    await files.write("exports/a.csv", other())
    with pytest.raises(FileMissingError):
        await anext(pieces)


async def test_old_files_are_listed_by_folder_and_young_ones_are_not(files, tmp_path):
    for name in ("exports/old", "exports/young", "imports/old"):
        await files.write(name, blocks())
    two_days_ago = time.time() - 2 * DAY.total_seconds()
    for name in ("exports/old", "imports/old"):
        os.utime(tmp_path / name, (two_days_ago, two_days_ago))
    assert [name async for name in files.list_old("exports", DAY)] == ["exports/old"]
    assert [name async for name in files.list_old("nowhere", DAY)] == []


async def test_what_a_killed_process_left_half_written_is_cleared_once_it_is_old(files, tmp_path):
    await files.write("exports/whole", blocks())
    two_days_ago = time.time() - 2 * DAY.total_seconds()
    for name, is_old in (("a.csv#1", True), ("b.csv#12", True), ("c.csv#1", False)):
        path = tmp_path / "exports" / name
        path.write_bytes(BLOCK)
        if is_old:
            os.utime(path, (two_days_ago, two_days_ago))
    assert await files.clear_unfinished(DAY) == 2
    assert sorted(path.name for path in all_in(tmp_path)) == ["c.csv#1", "whole"]
