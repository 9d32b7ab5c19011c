"""`pricebook export` and `pricebook import`, as a person and a script run them."""

import asyncio
import csv
import io
import json
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.conftest import PASSWORD, Api, MakeItem, until
from tests.processes import ForkedApi, ForkedWorker
from tests.shell import Shell

from pricebook.core.settings import Settings
from pricebook.items.models import Item
from pricebook.users.models import User

HEADER = "sku,name,price,currency\r\n"
GOOD = f"{HEADER}A-1,Hammer,12.50,EUR\r\nA-2,Saw,8,EUR\r\n"
PARTLY_WRONG = f"{HEADER}A-1,Hammer,12.50,EUR\r\nA-2,Saw,cheap,EUR\r\nA-3,File,3,EUR\r\n"
# So large that most of it is still to come when the first of it is there.
MAKE_LARGE = """
    INSERT INTO items (sku, name, price, currency, notes)
    SELECT 'L-' || number, 'Large', 1, 'EUR', (
        SELECT string_agg(md5(number || '.' || part), '') FROM generate_series(1, 300) AS part
    )
    FROM generate_series(1, 8000) AS number
"""


Prices = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture
def served(settings: Settings, tmp_path: Path) -> Iterator[ForkedApi]:
    api = ForkedApi(settings, tmp_path / "api.log")
    api.start()
    yield api
    api.close()


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[ForkedWorker]:
    process = ForkedWorker(settings, tmp_path / "worker.log")
    process.start()
    yield process
    process.close()


@pytest.fixture
async def shell(
    served: ForkedApi, make_key: Callable[..., Awaitable[str]], editor: User, tmp_path: Path
) -> Shell:
    """A folder where commands run as an editor with a key."""
    folder = tmp_path / "shell"
    folder.mkdir()
    key = await make_key(editor, "items:read", "items:write")
    return Shell(folder, url=served.url, api_key=key)


@pytest.fixture
def prices(session: AsyncSession) -> Prices:
    """Read what the list has."""

    async def read() -> dict[str, str]:
        await session.rollback()
        rows = await session.execute(select(Item.sku, Item.price).order_by(Item.sku))
        return {sku: f"{price:f}" for sku, price in rows}

    return read


async def test_the_list_goes_into_a_file(shell: Shell, make_item: MakeItem) -> None:
    for number in range(3):
        await make_item(sku=f"A-{number}", name='Two, and a "quote"', tags=["a", "b"])
    ended = await shell.run("export", "-o", "list.csv")
    assert (ended.code, ended.out, ended.said) == (0, "", "3 items in list.csv\n")
    rows = list(csv.DictReader(io.StringIO(shell.read("list.csv"))))
    assert [row["sku"] for row in rows] == ["A-0", "A-1", "A-2"]
    assert (rows[0]["name"], rows[0]["tags"]) == ('Two, and a "quote"', "a;b")
    assert shell.files() == {"list.csv"}


async def test_a_pipe_takes_the_part_of_the_list_that_is_asked_for(
    shell: Shell, make_item: MakeItem
) -> None:
    await make_item(sku="A-1", tags=["tools"])
    await make_item(sku="A-2", tags=["toys"], name="=1+1")
    only = ("--tag", "toys", "--fields", "sku,name", "--delimiter", "semicolon", "--no-guard")
    ended = await shell.run("export", *only)
    assert (ended.code, ended.said) == (0, "1 items\n")
    assert ended.out.splitlines() == ["sku;name", '"A-2";"=1+1"']
    as_json = await shell.run("export", "items", "--format", "jsonl", "--fields", "sku")
    assert as_json.out == '{"sku":"A-1"}\n{"sku":"A-2"}\n'


async def test_an_export_that_breaks_off_leaves_no_file_and_says_so(
    shell: Shell, session: AsyncSession, served: ForkedApi
) -> None:
    await session.execute(text(MAKE_LARGE))
    await session.commit()
    part = shell.folder / "list.csv.part"
    process = await shell.start("export", "-o", "list.csv")
    await until(lambda: part.exists() and part.stat().st_size)
    served.kill()
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"pricebook: the export broke off, and what came is not all of it: ")
    assert len(said.splitlines()) == 1
    assert shell.files() == set()


async def test_what_the_api_refuses_is_said_in_a_line(shell: Shell) -> None:
    ended = await shell.run("export", "-o", "list.csv", "--fields", "sku,colour")
    assert ended.code == 1
    assert ended.said.startswith("pricebook: query/fields/colour: ")
    assert "(request " in ended.said
    assert len(ended.said.splitlines()) == 1
    assert shell.files() == set()
    users = await shell.run("export", "users")
    assert (users.code, users.out, len(users.said.splitlines())) == (1, "", 1)


async def test_wrong_usage_ends_with_2(shell: Shell) -> None:
    assert (await shell.run("export", "--format", "xlsx")).code == 2
    assert (await shell.run("import", "no-such-file.csv")).code == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"api_key": ""}, "no credentials: set PRICEBOOK_API_KEY"),
        ({"api_key": "pb_wrong"}, "(request "),
        ({"url": "http://no-such-host.invalid"}, "there is no host no-such-host.invalid"),
        ({"url": "http://127.0.0.1:1"}, "nothing answers at http://127.0.0.1:1"),
        ({"url": "prices.example.com"}, "must look like https://prices.example.com"),
    ],
)
async def test_nobody_to_ask_is_said_in_a_line(
    shell: Shell, changed: dict[str, str], words: str
) -> None:
    shell.write("list.csv", GOOD)
    for arguments in (("export",), ("import", "list.csv")):
        ended = await shell.run(*arguments, **changed)
        assert (ended.code, ended.out) == (1, "")
        assert words in ended.said
        assert len(ended.said.splitlines()) == 1


async def test_the_pricebook_that_runs_in_the_data_folder_is_asked(
    shell: Shell, served: ForkedApi
) -> None:
    shell.write("run.json", json.dumps({"api": {"url": served.url}}))
    ended = await shell.run("export", url="", data_dir=str(shell.folder))
    assert (ended.code, ended.said) == (0, "0 items\n")
    named = await shell.run("export", "--url", f"{served.url}/v1/", url="http://127.0.0.1:1")
    assert named.code == 0


async def test_a_person_logs_in_at_a_terminal_and_is_logged_out_at_the_end(
    shell: Shell, make_item: MakeItem, api: Api, editor: User
) -> None:
    await make_item(sku="A-1")
    ended = await shell.run_at_terminal(
        *("export", "-o", "list.csv"),
        answers={"E-mail": editor.email, "Password": PASSWORD},
        api_key="",
    )
    assert (ended.code, ended.out) == (0, ""), ended.said
    assert "1 items in list.csv" in ended.said
    assert PASSWORD not in ended.said
    sessions = await api.as_(editor).get("/v1/auth/sessions")
    assert [session["is_current"] for session in sessions.json()["items"]] == [True]


async def test_a_dry_run_tells_all_and_changes_nothing(
    shell: Shell,
    worker: ForkedWorker,
    make_item: MakeItem,
    prices: Prices,
) -> None:
    await make_item(sku="A-1", name="Hammer", price=10)
    shell.write("list.csv", "sku,name,price,currency,colour\r\nA-1,Hammer,12.50,EUR,red\r\n")
    ended = await shell.run("import", "list.csv", "--dry-run")
    assert ended.code == 0, ended.said
    assert "A-1" in ended.out
    assert "price 10.0000 → 12.5000" in ended.out
    assert "no field is called so: colour" in ended.out
    assert "Nothing was changed: this was a dry run." in ended.out
    assert await prices() == {"A-1": "10.0000"}


async def test_a_file_is_applied_and_a_second_time_changes_nothing(
    shell: Shell, worker: ForkedWorker, prices: Prices
) -> None:
    shell.write("list.csv", GOOD)
    ended = await shell.run("import", "list.csv")
    assert (ended.code, ended.said) == (0, "")
    assert "Done: 2 new, 0 changed." in ended.out
    assert await prices() == {"A-1": "12.5000", "A-2": "8.0000"}
    again = await shell.run("import", "-", sent=GOOD.encode())
    assert again.code == 0, again.said
    assert "Done: 0 new, 0 changed." in again.out


async def test_refused_rows_stop_it_all_and_are_mended_and_sent_again(
    shell: Shell, worker: ForkedWorker, prices: Prices
) -> None:
    shell.write("list.csv", PARTLY_WRONG)
    ended = await shell.run("import", "list.csv")
    assert ended.code == 1
    assert "Not done: 1 of 3 rows is refused" in ended.out
    assert await prices() == {}
    assert shell.files() == {"list.csv", "list.csv.errors.csv"}
    shell.write("mended.csv", shell.read("list.csv.errors.csv").replace("cheap", "8"))
    skipping = await shell.run("import", "list.csv", "--skip-refused", "--errors", "mine.csv")
    assert skipping.code == 1
    assert shell.read("mine.csv") == shell.read("list.csv.errors.csv")
    assert await prices() == {"A-1": "12.5000", "A-3": "3.0000"}
    assert (await shell.run("import", "mended.csv")).code == 0
    assert await prices() == {"A-1": "12.5000", "A-2": "8.0000", "A-3": "3.0000"}


async def test_their_columns_and_their_decimals_are_read(
    shell: Shell, worker: ForkedWorker, prices: Prices
) -> None:
    theirs = "Artikel;Bezeichnung;Preis: netto;Währung\r\nA-1;Säge;12,50;EUR\r\n"
    shell.write("liste.csv", theirs.encode("windows-1252"))
    named = ("Artikel:sku", "Bezeichnung:name", "Preis: netto:price", "Währung:currency")
    options = [part for one in named for part in ("--column", one)]
    ended = await shell.run("import", "liste.csv", "--decimal", "comma", *options)
    assert ended.code == 0, ended.said + ended.out
    assert await prices() == {"A-1": "12.5000"}


async def test_a_large_file_that_is_not_wanted_is_not_sent(shell: Shell) -> None:
    packed = b"\x1f\x8b" + bytes(64_000_000)
    shell.write("large.csv.gz", packed)
    ended = await shell.run("import", "large.csv.gz", api_key="pb_wrong")
    assert ended.code == 1
    assert "(request " in ended.said


async def test_a_file_is_sent_though_nobody_answers_whether_it_is_wanted(shell: Shell) -> None:
    received: list[bytes] = []

    async def be_old_fashioned(reader: StreamReader, writer: StreamWriter) -> None:
        while b"\r\n0\r\n\r\n" not in b"".join(received):
            if not (part := await reader.read(65_536)):
                break
            received.append(part)
        problem = b'{"detail": "Too old.", "request_id": "1"}'
        head = b"HTTP/1.1 422 No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        writer.write(head % len(problem) + problem)
        await writer.drain()
        writer.close()

    shell.write("list.csv", GOOD)
    async with await asyncio.start_server(be_old_fashioned, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ended = await shell.run("import", "list.csv", url=f"http://127.0.0.1:{port}")
    assert (ended.code, ended.said) == (1, "pricebook: Too old. (request 1)\n")


async def test_someone_at_a_terminal_sees_how_far_it_is(
    shell: Shell, worker: ForkedWorker, prices: Prices
) -> None:
    shell.write("list.csv", GOOD)
    ended = await shell.run_at_terminal("import", "list.csv", answers={})
    assert ended.code == 0, ended.said
    assert "Uploading" in ended.said
    assert len(await prices()) == 2


async def test_ctrl_c_cancels_the_job(shell: Shell, api: Api, editor: User, prices: Prices) -> None:
    shell.write("list.csv", GOOD)
    process = await shell.start("import", "list.csv")  # no worker runs, so it waits

    async def jobs() -> list[dict[str, str]]:
        listed = await api.as_(editor).get("/v1/jobs")
        return listed.json()["items"]

    await until(jobs)
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    assert process.returncode == 130
    assert b"Cancelled: nothing was changed." in said
    assert [job["status"] for job in await jobs()] == ["cancelled"]
