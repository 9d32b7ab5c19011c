"""What an import found, as a person likes to read it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]

_FIRST_REFUSALS = 20
_LONGEST_VALUE = 40
# Wide enough for a log, which has no width of its own.
_WIDTH_OF_A_LOG = 140


def print_report(job: Mapping[str, Any], errors_path: Path | None) -> None:
    """Print what became of an import, and what to do about it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_LOG
    report: Report = job["result"] or {}
    if "rows" in report:
        _print_found(console, report)
    for line in _conclusion(job, report, errors_path):
        console.print(Text(_shown(line)), soft_wrap=True)


def _print_found(console: Console, report: Report) -> None:
    console.print(_counts(report))
    if report["refusals"]:
        console.print(_refusals(report))
    if report["sample"]:
        console.print(_sample(report))
    if unknown := report["unknown_columns"]:
        names = ", ".join(unknown)
        hint = f'Read one with --column "{unknown[0]}:field".'
        text = f"Not read, since no field is called so: {names}. {hint}"
        console.print(Text(_shown(text)), soft_wrap=True)
        console.print()


def _counts(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    remarks = {
        "rows": f"{report['encoding']}, {report['delimiter']}: {', '.join(report['columns'])}",
        "changed": f"{report['price_changes']:,} of them in price" if report["changed"] else "",
    }
    for name in ("rows", "new", "changed", "unchanged", "refused"):
        table.add_row(name, f"{report[name]:,}", Text(_shown(remarks.get(name, ""))))
    table.add_row()
    return table


def _refusals(report: Report) -> Table:
    shown = report["refusals"][:_FIRST_REFUSALS]
    rows = (
        (f"{one['line']}", one["column"] or "", one["value"] or "", one["detail"]) for one in shown
    )
    title = f"Refused, the first {len(shown)} of {report['refused']:,}"
    return _table(title, ("line", "column", "value", "why"), rows)


def _sample(report: Report) -> Table:
    rows = (
        (f"{one['line']}", one["sku"], one["change"], _difference(one)) for one in report["sample"]
    )
    count = report["new"] + report["changed"]
    title = f"Changes, {len(report['sample'])} of {count:,}"
    return _table(title, ("line", "sku", "is", "what"), rows)


def _difference(change: Report) -> str:
    if change["change"] == "new":
        return "; ".join(f"{name} {_value(new)}" for name, (_, new) in change["fields"].items())
    return "; ".join(
        f"{name} {_value(old)} → {_value(new)}" for name, (old, new) in change["fields"].items()
    )


def _value(value: object) -> str:
    if value is None or value == []:
        return "none"
    if value == "":
        return "empty"
    text = ";".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _table(title: str, names: Sequence[str], rows: Iterator[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    table.add_row()
    return table


def _conclusion(job: Mapping[str, Any], report: Report, errors_path: Path | None) -> Iterator[str]:
    if errors_path is not None:
        yield f"The refused rows are in {errors_path}: mend them there, and import that file."
    if job["status"] == "cancelled":
        yield "Cancelled: nothing was changed."
    elif job["status"] != "succeeded":
        yield f"Not done: {job['error']}"
    elif not report["applied"]:
        yield "Nothing was changed: this was a dry run."
    else:
        yield f"Done: {report['new']:,} new, {report['changed']:,} changed."


def _shown(text: str) -> str:
    """Leave out what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)
