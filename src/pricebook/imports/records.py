"""Records: CSV text goes in piece by piece, rows as COPY's text format come out.

Python's csv module reads every record, so that there is one opinion on what a cell is. It reads
strictly: a quotation mark that would be understood in two ways is a problem of its row.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from pricebook.imports.errors import FileUnreadable

MAX_RECORD = 1_000_000
"""The most characters of one record."""

if TYPE_CHECKING:
    import _csv

_NULL = r"\N"
_UNFINISHED = "unexpected end of data"
_NUL = "\x00"
_NUL_SHOWN = "\ufffd"

Row = list[str]


class Records:
    """The records of one file, from the line after its header on."""

    def __init__(self, delimiter: str, width: int, positions: Sequence[int], line: int) -> None:
        """Expect `width` cells a row, and pass on those at `positions`; `line` comes next."""
        self._delimiter = delimiter
        self._width = width
        self._positions = positions
        self._is_whole = list(positions) == list(range(width))
        self._chosen = _choice(positions)
        self._line = line
        self._rest = ""
        self.rows = 0

    def line_reached(self) -> int:
        """Return the number of the line that the next text begins in."""
        return self._line + breaks_in(self._rest)

    def feed(self, text: str) -> bytes:
        """Return the records that end in `text`."""
        text = self._rest + text
        # A CR at the end may be the first half of a line's end.
        end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        found, unread = self._read(text[:end])
        self._rest = unread + text[end:]
        if len(self._rest) > MAX_RECORD:
            raise FileUnreadable(_too_long(self._line, MAX_RECORD))
        return found

    def finish(self) -> bytes:
        """Return the last records."""
        text, self._rest = self._rest, ""
        found, _ = self._read(text, is_last=True)
        return found

    def _read(self, text: str, *, is_last: bool = False) -> tuple[bytes, str]:
        """Return what to copy of the text, and the beginning of a record that goes on after it."""
        if (found := self._read_quickly(text)) is not None:
            return found.encode(), ""
        lines = io.StringIO(text, newline="").readlines()
        reader = self._reader(lines)
        copied: list[str] = []
        start = 0
        while start < len(lines):
            first = self._line
            rows, fault = _rows_until_fault(reader)
            copied.extend(self._carefully(rows))
            if fault is None:
                break
            start += self._line - first
            if fault == _UNFINISHED and not is_last:
                return "".join(copied).encode(), "".join(lines[start:])
            copied.append(self._broken(lines[start : reader.line_num], fault))
            start = reader.line_num
        return "".join(copied).encode(), ""

    def _read_quickly(self, text: str) -> str | None:
        """Read text in which each line is a row as it should be; None if it is not."""
        if self._may_be_odd(text):
            return None
        lines = _lines_of(self._escaped_before(text))
        rows = None if lines is None else self._rows_of(lines)
        if not rows or set(map(len, rows)) != {self._width} or not all(map(any, rows)):
            return None
        numbered = enumerate(rows if self._is_whole else map(self._chosen, rows), self._line)
        self._line += len(rows)
        self.rows += len(rows)
        return "".join([f"{line}\t\\N\t" + "\t".join(cells) + "\n" for line, cells in numbered])

    def _may_be_odd(self, text: str) -> bool:
        """Whether a cell may have a problem, or hold what separates cells."""
        may_hold_tab = self._delimiter == "\t" and '"' in text
        return may_hold_tab or _NUL in text

    def _escaped_before(self, text: str) -> str:
        """Escape for COPY what means nothing to CSV; all at once is faster than by the cell."""
        escaped = text.replace("\\", r"\\")
        return escaped if self._delimiter == "\t" else escaped.replace("\t", r"\t")

    def _rows_of(self, lines: Sequence[str]) -> list[Row] | None:
        """Read lines that are a row each; the parser need see only those with quotation marks."""
        delimiter = self._delimiter
        reader = self._reader(line for line in lines if '"' in line)
        try:
            return [next(reader) if '"' in line else line.split(delimiter) for line in lines]
        except (StopIteration, csv.Error):
            # Some record takes several of them.
            return None

    def _reader(self, lines: Iterable[str]) -> "_csv.Reader":
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _carefully(self, rows: Iterable[Row]) -> Iterator[str]:
        for row in rows:
            if any(row):
                yield self._written(row, self._problem(row))
            self._line += 1 + sum(map(breaks_in, row))

    def _problem(self, row: Row) -> str:
        if len(row) != self._width:
            cells = "cell" if len(row) == 1 else "cells"
            return f"has {len(row)} {cells}, the header has {self._width}"
        if any(_NUL in cell for cell in row):
            return "holds the character U+0000"
        return _NULL

    def _broken(self, lines: Sequence[str], fault: str) -> str:
        """Return the row that a record with a misplaced quotation mark may have been."""
        row = self._guessed(lines)
        if fault == _UNFINISHED:
            line = self._line + sum(map(breaks_in, row[:-1]))
            problem = f"the quotation mark that opens in line {line} is never closed"
        else:
            line = self._line + len(lines) - 1
            problem = (
                f"in line {line} text follows a closing quotation mark; "
                "inside of quoted text it is written twice"
            )
        written = self._written(row, problem)
        self._line += len(lines)
        return written

    def _guessed(self, lines: Iterable[str]) -> Row:
        """Read a record leniently; no cell is so long but for a quotation mark that is not closed.

        Raises:
            FileUnreadable: One is.

        """
        try:
            return next(csv.reader(lines, delimiter=self._delimiter))
        except csv.Error as error:
            raise FileUnreadable(_too_long(self._line, csv.field_size_limit())) from error

    def _written(self, row: Row, problem: str) -> str:
        """Write a row with as many cells as expected, whatever it has."""
        self.rows += 1
        missing = self._width - len(row)
        cells = self._chosen(row[: self._width] + [""] * missing)
        joined = _NUL.join([cell.replace(_NUL, _NUL_SHOWN) for cell in cells])
        return f"{self._line}\t{problem}\t{_escaped(joined)}\n"


def _lines_of(text: str) -> list[str] | None:
    """Return the lines without their ends, if all end alike and as lines mostly do."""
    end = "\n"
    if "\r" in text:
        end = "\r\n"
        if not text.count(end) == text.count("\r") == text.count("\n"):
            return None
    lines = text.split(end)
    if not lines[-1]:
        lines.pop()
    return lines


def _rows_until_fault(reader: "_csv.Reader") -> tuple[list[Row], str | None]:
    rows: list[Row] = []
    try:
        rows.extend(reader)
    except csv.Error as error:
        return rows, str(error)
    return rows, None


def breaks_in(text: str) -> int:
    """Count the ends of lines."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _choice(positions: Sequence[int]) -> Callable[[Row], Iterable[str]]:
    if len(positions) == 1:
        only = positions[0]
        return lambda row: (row[only],)
    return itemgetter(*positions)


def _escaped(joined: str) -> str:
    r"""Escape cells that U+0000 joins, and join them by tabs (COPY, "Text Format")."""
    escaped = joined.replace("\\", r"\\").replace("\t", r"\t")
    return escaped.replace("\n", r"\n").replace("\r", r"\r").replace(_NUL, "\t")


def _too_long(line: int, most: int) -> str:
    return (
        f"What begins in line {line} is longer than {most:,} characters. "
        "Is a quotation mark not closed?"
    )
