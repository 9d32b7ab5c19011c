"""Records: CSV text goes in piece by piece, rows as COPY's text format come out.

Python's csv module reads every record, so that there is one opinion on what a cell is. It reads
strictly: a quotation mark that would be understood in two ways is a problem of its row.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from pricebook.imports.errors import FileUnreadable

MAX_RECORD = 1_000_000
"""The most characters of one record."""

_NULL = r"\N"
_UNFINISHED = "unexpected end of data"
_CELL_TOO_LONG = "field limit"
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
        # What can be found in no text but one with a row of empty cells.
        self._empty_row = delimiter * (width - 1) or '""'
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
        lines = io.StringIO(text, newline="").readlines()
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        found: list[str] = []
        is_harmless = self._is_harmless(text)
        start = 0
        while start < len(lines):
            rows: list[Row] = []
            try:
                rows.extend(reader)
            except csv.Error as error:
                fault = str(error)
            else:
                found.extend(self._copied(rows, len(lines) - start, is_harmless=is_harmless))
                break
            first = self._line
            found.extend(self._carefully(rows))
            start += self._line - first
            if fault == _UNFINISHED and not is_last:
                return "".join(found).encode(), "".join(lines[start:])
            found.append(self._broken(lines[start : reader.line_num], fault))
            start = reader.line_num
        return "".join(found).encode(), ""

    def _is_harmless(self, text: str) -> bool:
        """Whether no cell can hold what COPY escapes, and no row is left out."""
        may_hold_tab = "\t" in text and (self._delimiter != "\t" or '"' in text)
        return not (may_hold_tab or "\\" in text or _NUL in text or self._empty_row in text)

    def _copied(self, rows: list[Row], lines: int, *, is_harmless: bool) -> Iterable[str]:
        if not is_harmless or len(rows) != lines or set(map(len, rows)) != {self._width}:
            return self._carefully(rows)
        numbered = enumerate(rows if self._is_whole else map(self._chosen, rows), self._line)
        self._line += lines
        self.rows += lines
        return [f"{line}\t\\N\t" + "\t".join(cells) + "\n" for line, cells in numbered]

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
        if _CELL_TOO_LONG in fault:
            raise FileUnreadable(_too_long(self._line, csv.field_size_limit()))
        row = next(csv.reader(lines, delimiter=self._delimiter))
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

    def _written(self, row: Row, problem: str) -> str:
        """Write a row with as many cells as expected, whatever it has."""
        self.rows += 1
        missing = self._width - len(row)
        cells = self._chosen(row[: self._width] + [""] * missing)
        joined = _NUL.join([cell.replace(_NUL, _NUL_SHOWN) for cell in cells])
        return f"{self._line}\t{problem}\t{_escaped(joined)}\n"


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
