"""A list that goes through LibreOffice: from CSV to a workbook and back, and in again as a file."""

import csv
import io
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import Api
from tests.processes import ForkedApi, ForkedWorker
from tests.shell import Shell

from pricebook.core.settings import Settings
from pricebook.users.models import User

pytestmark = pytest.mark.chaos

# The tokens of LibreOffice's filter for CSV: comma, quote, UTF-8, from line 1, no formats, any
# language, and that what is quoted is text.
QUOTED_IS_TEXT = "--infilter=CSV:44,34,76,1,,0,true"

NORMAL = [
    {
        "sku": f"TOOL-{number:03}",
        "name": f"Hammer {number}",
        "price": f"{number}.{number:04}",
        "cost": f"{number}.5",
        "currency": "EUR",
        "tax_rate": "19.5",
        "tags": ["tools", f"aisle {number % 7}"],
        "description": "Forged, with a handle of ash",
    }
    for number in range(1, 201)
]
FORMULAS = ["=1+1", "+49 30 1234", "-5", "@SUM(A1:A9)", "'=2+2", '=HYPERLINK("http://x","y")']
GUARDED = [
    {"sku": f"CELL-{number}", "name": text, "notes": text, "price": "1.1", "currency": "EUR"}
    for number, text in enumerate(FORMULAS)
]
# What a spreadsheet makes a number of, unless it is told that quoted cells are text.
NUMBERS = [
    {"sku": sku, "name": "A number to some", "price": "1.2345", "currency": "EUR"}
    for sku in ("00123", "12345678901234567890", "1E5")
]


Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(report: str) -> None:
        with capsys.disabled():
            print("", report, sep="\n")  # noqa: T201 -- what changes is what it is run for

    return say


@pytest.fixture
def soffice() -> str:
    path = shutil.which("soffice")
    assert path, (
        "LibreOffice is not there: apt-get install --no-install-recommends libreoffice-calc"
    )
    return path


@pytest.fixture
def served(settings: Settings, tmp_path: Path) -> Iterator[ForkedApi]:
    with ExitStack() as started:
        api = ForkedApi(settings, tmp_path / "api.log")
        for process in (api, ForkedWorker(settings, tmp_path / "worker.log")):
            started.callback(process.close)
            process.start()
        yield api


@pytest.fixture
async def shell(
    served: ForkedApi, make_key: Callable[..., Awaitable[str]], editor: User, tmp_path: Path
) -> Shell:
    key = await make_key(editor, "items:read", "items:write")
    folder = tmp_path / "shell"
    folder.mkdir()
    return Shell(folder, url=served.url, api_key=key)


@pytest.fixture
def through_libreoffice(soffice: str, shell: Shell) -> Callable[..., str]:
    """Turn list.csv into a workbook, and that into back/list.csv."""

    def convert(*arguments: str) -> None:
        profile = f"-env:UserInstallation={(shell.folder / 'profile').as_uri()}"
        subprocess.run(
            [soffice, "--headless", profile, *arguments],
            cwd=shell.folder,
            check=True,
            capture_output=True,
            timeout=120,
        )

    def go(*how: str) -> str:
        convert(*how, "--convert-to", "xlsx", "list.csv")
        convert("--convert-to", "csv", "--outdir", "back", "list.xlsx")
        return shell.read("back/list.csv")

    return go


async def test_guarded_cells_are_text_and_prices_unchanged(
    shell: Shell, through_libreoffice: Callable[..., str], api: Api, editor: User, say: Say
) -> None:
    items = [*NORMAL, *GUARDED, *NUMBERS]
    await _add(api.as_(editor), items)
    await shell.run("export", "-o", "list.csv")
    back = through_libreoffice(QUOTED_IS_TEXT)
    cells = {row["sku"]: row["name"] for row in csv.DictReader(io.StringIO(back, newline=""))}
    assert [cells[item["sku"]] for item in GUARDED] == [f"'{text}" for text in FORMULAS]
    ended = await shell.run("import", "back/list.csv", "--dry-run")
    say(ended.out)
    assert ended.code == 0, ended.said
    assert _count(ended.out, "unchanged") == len(items)


async def test_what_a_spreadsheet_takes_for_numbers_is_seen_in_the_dry_run(
    shell: Shell, through_libreoffice: Callable[..., str], api: Api, editor: User, say: Say
) -> None:
    items = [*NORMAL, *GUARDED, *NUMBERS]
    await _add(api.as_(editor), items)
    await shell.run("export", "-o", "list.csv")
    through_libreoffice()
    ended = await shell.run("import", "back/list.csv", "--dry-run")
    say(ended.out)
    assert _count(ended.out, "unchanged") == len(NORMAL) + len(GUARDED)
    assert (_count(ended.out, "changed"), _count(ended.out, "new")) == (0, len(NUMBERS))


async def _add(client: Api, items: list[dict[str, object]]) -> None:
    operations = [{"op": "create", "item": item} for item in items]
    reply = await client.post("/v1/items/batch", json={"operations": operations})
    assert reply.status_code == 200, reply.text


def _count(report: str, name: str) -> int:
    (line,) = (line for line in report.splitlines() if line.split()[:1] == [name])
    return int(line.split()[1].replace(",", ""))
