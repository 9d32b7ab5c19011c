"""The whole list out, beside `psql -c '\\copy (…) to stdout csv'`, and what others notice of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from tests.benchmarks import psql
from tests.benchmarks.data import load
from tests.benchmarks.download import Download, download
from tests.benchmarks.findings import Finding, at_least, at_most
from tests.benchmarks.load import Pacer, connections
from tests.benchmarks.memory import Growth
from tests.benchmarks.servers import Field
from tests.benchmarks.works import request

_ROUNDS = 5
_AT_ONCE = 4
_SECONDS = 10.0
# A shop that reads prices now and then: what waits, waits for the exports and not for itself.
_READS_A_SECOND = 100
_READERS = 16

# What an editor's export selects unless told otherwise, in the same order.
_COPY = (
    r"\copy (SELECT sku, name, description, price, currency, tax_rate, array_to_string(tags, ';'),"
    " cost, notes FROM items ORDER BY id) TO STDOUT (FORMAT csv)"
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask for the list, and the share of psql's rate that it has to reach."""

    name: str
    query: str
    encoding: str
    target: float


_WAYS = (
    Way("plain", "?guard=false", "identity", 0.70),
    Way("guarded", "", "identity", 0.60),
    Way("plain, zstd", "?guard=false", "zstd", 0.65),
    Way("plain, gzip", "?guard=false", "gzip", 0.65),
)
_USUAL = Way("guarded, zstd", "", "zstd", 0.60)


async def measure_exports(field: Field, token: str, rows: int) -> list[Finding]:
    """Let psql and each way take turns; then read single items while several exports run."""
    item_ids = await load(field.settings, rows)
    growth = Growth(field.pricebook.pid)
    references: list[float] = []
    found: dict[Way, list[Download]] = {way: [] for way in (*_WAYS, _USUAL)}
    for _ in range(_ROUNDS):
        references.append(await asyncio.to_thread(psql.run, field.settings, _COPY))
        for way, downloads in found.items():
            downloads.append(await _export(field, token, way))
    first_bytes = [one.first_byte_seconds for one in found[_WAYS[0]]]
    return [
        *(_compared(way, found[way], references, rows) for way in found),
        at_most(10, 1000 * median(first_bytes), "ms to the first byte of an export"),
        at_most(10, growth.megabytes, "MB more in the API process at most, one export at a time"),
        *await _measure_others(field, token, item_ids),
    ]


async def _export(field: Field, token: str, way: Way) -> Download:
    asked = request("GET", f"/v1/exports/items.csv{way.query}", token)
    headers = f"\r\naccept-encoding: {way.encoding}\r\nconnection: close\r\n\r\n".encode()
    return await download(field.pricebook.port, asked.removesuffix(b"\r\n\r\n") + headers)


def _compared(
    way: Way, downloads: Sequence[Download], references: Sequence[float], rows: int
) -> Finding:
    ratio = median(
        reference / one.seconds for reference, one in zip(references, downloads, strict=True)
    )
    ours, theirs = rows / median(one.seconds for one in downloads), rows / median(references)
    megabytes = downloads[0].body_bytes / 1e6
    return at_least(
        way.target,
        ratio,
        f"times psql's rate, export {way.name}: {ours / 1e3:,.0f} k rows/s beside "
        f"{theirs / 1e3:,.0f} k; {rows:,} rows, {megabytes:,.0f} MB",
    )


async def _measure_others(field: Field, token: str, item_ids: Sequence[str]) -> list[Finding]:
    """Read items one by one: in quiet, amid exports, and amid as many psql, which only compute."""
    reads = [request("GET", f"/v1/items/{item_id}", token) for item_id in item_ids]
    growth = Growth(field.pricebook.pid)
    async with connections(field.pricebook.port, _READERS) as readers:
        pacer = Pacer(readers, reads)
        quiet = await pacer.run(_READS_A_SECOND, asyncio.sleep(_SECONDS))
        busy = await pacer.run(_READS_A_SECOND, _at_once(lambda: _export(field, token, _USUAL)))
        grown = growth.megabytes
        copy = partial(asyncio.to_thread, psql.run, field.settings, _COPY)
        beside = await pacer.run(_READS_A_SECOND, _at_once(copy))
    idle, crowded, computing = (one.percentile(0.99) for one in (quiet, busy, beside))
    shown = f"{crowded:.1f} ms; in quiet {idle:.1f}, amid {_AT_ONCE} psql {computing:.1f}"
    return [
        at_most(
            3, crowded / idle, f"times p99 of an item in quiet, amid {_AT_ONCE} exports: {shown}"
        ),
        at_most(30, grown, f"MB more in the API process at most, {_AT_ONCE} exports at once"),
    ]


async def _at_once(export: Callable[[], Awaitable[object]]) -> None:
    """Export several times at once, again and again for a while."""
    ends_at = time.perf_counter() + _SECONDS

    async def keep_on() -> None:
        while time.perf_counter() < ends_at:
            await export()

    await asyncio.gather(*(keep_on() for _ in range(_AT_ONCE)))
