"""Lines of CSV (RFC 4180) that PostgreSQL writes itself, from a `Select`'s own columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, DateTime, Text, func, literal_column
from sqlalchemy import cast as cast_sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from pricebook.core.guarding import guarded
from pricebook.core.reading import as_json, written_moment

Delimiter = Literal["comma", "semicolon", "tab"]

_DELIMITERS: dict[Delimiter, str] = {"comma": ",", "semicolon": ";", "tab": "\t"}
_LINE_END = "\r\n"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How CSV is written."""

    delimiter: Delimiter = "comma"
    has_bom: bool = False
    """Whether it begins with a byte order mark, by which spreadsheets tell UTF-8."""
    is_guarded: bool = True
    """Whether cells that a spreadsheet would run are neutralised; see `core.guarding`."""


def csv_head(names: Iterable[str], form: CsvForm) -> bytes:
    """Return the line of column names."""
    head = _DELIMITERS[form.delimiter].join(names) + _LINE_END
    return (_BYTE_ORDER_MARK * form.has_bom + head).encode()


def line_of(
    columns: Sequence[InstrumentedAttribute[Any]], form: CsvForm | None
) -> ColumnElement[str]:
    """Have PostgreSQL write these columns of a row as a line of CSV, or else of JSON."""
    if form is None:
        return cast_sql(as_json(columns), Text) + _text("\n")
    return _csv_line(columns, form)


def _csv_line(columns: Sequence[InstrumentedAttribute[Any]], form: CsvForm) -> ColumnElement[str]:
    """A null is an empty cell."""
    between = _text(_DELIMITERS[form.delimiter])
    cells = [part for column in columns for part in (_cell(column, form), between)]
    # concat() writes a null as nothing, and any type without a cast.
    return func.concat(*cells[:-1], _text(_LINE_END))


def _cell(column: InstrumentedAttribute[Any], form: CsvForm) -> ColumnElement[Any]:
    if isinstance(column.type, DateTime):
        return written_moment(column)
    if isinstance(column.type, ARRAY):
        return _quoted(func.array_to_string(column, _text(";")), form)
    if isinstance(column.type, Text):
        return _quoted(column.expression, form)
    return column.expression


def _quoted(text: ColumnElement[str], form: CsvForm) -> ColumnElement[str]:
    quote = _text('"')
    shown = guarded(text) if form.is_guarded else text
    return quote + func.replace(shown, quote, _text('""')) + quote


def _text(value: str) -> ColumnElement[str]:
    return literal_column("'" + value.replace("'", "''") + "'", Text())
