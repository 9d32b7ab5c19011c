"""`python -m tests.benchmarks`: Pricebook beside a bare-ASGI ceiling, in one run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop
from tests.benchmarks.data import load, make_editor
from tests.benchmarks.deliveries import measure_deliveries
from tests.benchmarks.exports import measure_exports
from tests.benchmarks.findings import Finding, as_json, finding_lines, ratio_lines
from tests.benchmarks.imports import measure_imports
from tests.benchmarks.logins import measure_crowd, measure_timing, open_session
from tests.benchmarks.servers import Field, field
from tests.benchmarks.streams import measure_streams
from tests.benchmarks.told import measure_told
from tests.benchmarks.works import Measured, measure, works

_ALL = ("item", "list", "patch", "logins", "deliveries", "told", "stream", "export", "import")
_OF_ITEMS = {"item", "list", "patch", "logins"}


def main() -> None:
    """Run the benchmarks that were asked for. They inform: a missed target is no failure."""
    options = _options()
    with field() as servers:
        ratios, findings = uvloop.run(_run(servers, options))
    for line in (*(ratio_lines(ratios) if ratios else ()), *finding_lines(findings)):
        _say(line)
    if options.json:
        options.json.write_bytes(
            orjson.dumps(as_json(ratios, findings), option=orjson.OPT_INDENT_2)
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="how many to load first")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="how many go out and in at once"
    )
    parser.add_argument("--rounds", type=int, default=7, help="how often both take turns")
    parser.add_argument("--seconds", type=float, default=2, help="how long each turn is")
    parser.add_argument("--only", choices=_ALL, default=_ALL, nargs="+", help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


async def _run(servers: Field, options: argparse.Namespace) -> tuple[list[Measured], list[Finding]]:
    ratios: list[Measured] = []
    findings: list[Finding] = []
    await make_editor(servers.settings)
    if _OF_ITEMS.intersection(options.only):
        ratios, findings = await _run_on_items(servers, options)
    if "deliveries" in options.only:
        _say("measuring deliveries")
        findings += await measure_deliveries(servers)
    if "told" in options.only:
        _say("telling of changed prices")
        findings += await measure_told(servers, await open_session(servers.pricebook))
    if "stream" in options.only:
        _say("telling a thousand streams")
        findings += await measure_streams(servers, await open_session(servers.pricebook))
    if "export" in options.only:
        _say(f"exporting {options.rows:,} items")
        token = await open_session(servers.pricebook)
        findings += await measure_exports(servers, token, options.rows)
    if "import" in options.only:
        _say(f"importing {options.rows:,} rows")
        token = await open_session(servers.pricebook)
        findings += await measure_imports(servers, token, options.rows)
    return ratios, findings


async def _run_on_items(
    servers: Field, options: argparse.Namespace
) -> tuple[list[Measured], list[Finding]]:
    _say(f"loading {options.items:,} items")
    item_ids = await load(servers.settings, options.items)
    chosen = works(await open_session(servers.pricebook), item_ids)
    ratios = []
    for name in filter(options.only.__contains__, chosen):
        _say(f"measuring {name}")
        ratios.append(
            await measure(servers, chosen[name], rounds=options.rounds, seconds=options.seconds)
        )
    findings = await _logins(servers, chosen["item"].requests) if "logins" in options.only else []
    return ratios, findings


async def _logins(servers: Field, reads: Sequence[bytes]) -> list[Finding]:
    _say("logging in")
    return [
        *await measure_crowd(servers.pricebook, reads),
        *await measure_timing(servers.pricebook),
    ]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 -- it is what the command is for


if __name__ == "__main__":
    main()
