"""A file into the list, by HTTP and a worker process, beside a bare COPY into an equal table."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import SecretStr
from tests.benchmarks import psql
from tests.benchmarks.data import COLUMNS, ROWS, connected
from tests.benchmarks.deliveries import worker_environment
from tests.benchmarks.findings import Finding, at_least, at_most
from tests.benchmarks.memory import Growth, wait_until_idle
from tests.benchmarks.servers import Field
from yarl import URL

from pricebook.commands.client import Access, Client, open_client
from pricebook.core.settings import Settings
from pricebook.core.spawn import Child, Service

_ROUNDS = 2
_TICK_SECONDS = 0.05
_STOP_SECONDS = 20
_WORKER = (sys.executable, "-m", "pricebook.worker")

_CSV = r"\copy (SELECT {shown} FROM ({rows})) TO STDOUT (FORMAT csv, HEADER)"
_COPY = r"\copy reference ({columns}) FROM '{path}' (FORMAT csv, HEADER)"
_CHANGED_PRICE = "CASE WHEN right(sku, 1) = '7' THEN price + 1 ELSE price END AS price"


@dataclass(frozen=True, slots=True)
class Stack:
    """The files that are imported, and the one that COPY takes."""

    rows: int
    new: Path
    changed: Path
    """A tenth of its prices are others."""
    reference: Path
    """The same as `new`, with the tags as an array."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an import finds, and the share of COPY's rate that it has to reach."""

    name: str
    counts: tuple[float, float, float]
    """Shares of rows that are new, changed, unchanged."""
    target: float


_NEW = Kind("all new", (1, 0, 0), 0.70)
_UNCHANGED = Kind("all unchanged", (0, 0, 1), 1.0)
_CHANGED = Kind("a tenth changed", (0, 0.1, 0.9), 0.50)


async def measure_imports(field: Field, token: str, rows: int) -> list[Finding]:
    """Let COPY and the three kinds of import take turns."""
    seconds: dict[Kind, list[float]] = {_NEW: [], _UNCHANGED: [], _CHANGED: []}
    references = []
    access = Access(URL(f"http://127.0.0.1:{field.pricebook.port}"), SecretStr(token))
    with _files(field.settings, rows) as stack, _worker(field.settings) as worker:
        api, work = Growth(field.pricebook.pid), Growth(worker.pid)
        async with open_client(access) as client:
            for _ in range(_ROUNDS):
                references.append(await _copy(field.settings, stack))
                await _empty(field.settings)
                for kind, path in _plan(stack):
                    seconds[kind].append(await _import(client, path, kind, rows))
        return [
            *(_compared(kind, found, references, rows) for kind, found in seconds.items()),
            at_most(30, work.megabytes, "MB more in the worker process at most"),
            at_most(
                30, api.megabytes, "MB more in the API process at most, while it takes uploads"
            ),
        ]


def _plan(stack: Stack) -> list[tuple[Kind, Path]]:
    return [(_NEW, stack.new), (_UNCHANGED, stack.new), (_CHANGED, stack.changed)]


@contextmanager
def _files(settings: Settings, rows: int) -> Iterator[Stack]:
    """Have psql write the files, from the rows that the other benchmarks load."""
    shown = COLUMNS.replace("tags", "array_to_string(tags, ';') AS tags")
    made = ROWS.format(rows=rows)
    with tempfile.TemporaryDirectory(prefix="pricebook-imports-") as name:
        folder = Path(name)
        stack = Stack(rows, folder / "new.csv", folder / "changed.csv", folder / "reference.csv")
        for path, columns in (
            (stack.new, shown),
            (stack.changed, shown.replace("price", _CHANGED_PRICE)),
            (stack.reference, COLUMNS),
        ):
            psql.run(settings, _flat(_CSV.format(shown=columns, rows=made)), path)
        yield stack


def _flat(command: str) -> str:
    """Put it on one line, which is where a command of psql ends."""
    return " ".join(command.split())


@contextmanager
def _worker(settings: Settings) -> Iterator[Service]:
    worker = Service("worker", Child(_WORKER, env=worker_environment(settings)))
    worker.launch()
    try:
        wait_until_idle(worker.pid)
        yield worker
    finally:
        worker.ask_to_stop()
        worker.has_stopped(_STOP_SECONDS)


async def _copy(settings: Settings, stack: Stack) -> float:
    """Fill a table like that of items, with the same indexes."""
    async with connected(settings) as connection:
        await connection.execute("DROP TABLE IF EXISTS reference")
        await connection.execute("CREATE TABLE reference (LIKE items INCLUDING ALL)")
    command = _COPY.format(columns=COLUMNS, path=stack.reference)
    return await asyncio.to_thread(psql.run, settings, command)


async def _empty(settings: Settings) -> None:
    async with connected(settings) as connection:
        await connection.execute("DROP TABLE reference; TRUNCATE items, events CASCADE")


async def _import(client: Client, path: Path, kind: Kind, rows: int) -> float:
    """Return the seconds from the first byte that is sent to the end of the job."""
    began = time.perf_counter()
    with path.open("rb") as file:
        job = await client.post(
            "/imports/items",
            params={"mode": "apply", "notify": "false"},
            data=file,
            headers={"Content-Type": "text/csv"},
        )
    while job["finished_at"] is None:
        await asyncio.sleep(_TICK_SECONDS)
        job = await client.get(f"/jobs/{job['id']}")
    seconds = time.perf_counter() - began
    found = job["result"]
    expected = tuple(round(share * rows) for share in kind.counts)
    assert (found["new"], found["changed"], found["unchanged"]) == expected, job
    return seconds


def _compared(kind: Kind, seconds: list[float], references: list[float], rows: int) -> Finding:
    ratio = median(theirs / ours for theirs, ours in zip(references, seconds, strict=True))
    ours, theirs = (rows / median(found) / 1e3 for found in (seconds, references))
    return at_least(
        kind.target,
        ratio,
        f"times COPY's rate, import {kind.name}: {ours:,.0f} k rows/s beside {theirs:,.0f} k; "
        f"{rows:,} rows, upload included",
    )
