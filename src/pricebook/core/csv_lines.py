"""Lines of CSV (RFC 4180) that PostgreSQL writes itself, from a `Select`'s own columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

from sqlalchemy import ColumnElement, DateTime, Text, case, func, literal_column
from sqlalchemy import cast as cast_sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from pricebook.core.guarding import MARK, needs_guard
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
    """Chain the cells: a function that takes them all would first copy every one of them.

    Texts are quoted whether or not they need it. To find that out, each would have to be searched
    for four characters, which takes about as long as to write all the rest of the line.
    """
    first, *others = columns
    between = _DELIMITERS[form.delimiter]
    cells = [_cell(first, "", form), *(_cell(column, between, form) for column in others)]
    return reduce(add, [*cells, _text(_LINE_END)])


def _cell(column: InstrumentedAttribute[Any], before: str, form: CsvForm) -> ColumnElement[str]:
    """Return a cell with the delimiter before it, which is all that there is of a null."""
    if isinstance(column.type, ARRAY):
        joined = func.array_to_string(column, _text(";"))
        cell = _quoted(joined, before, form, func.coalesce(column[1], _text("")))
    elif isinstance(column.type, Text):
        cell = _quoted(column.expression, before, form)
    elif isinstance(column.type, DateTime):
        cell = _text(before) + written_moment(column)
    else:
        cell = _text(before) + cast_sql(column, Text)
    return func.coalesce(cell, _text(before)) if column.nullable else cell


def _quoted(
    text: ColumnElement[str],
    before: str,
    form: CsvForm,
    beginning: ColumnElement[str] | None = None,
) -> ColumnElement[str]:
    quote = _text('"')
    begin: ColumnElement[str] = _text(before + '"')
    if form.is_guarded:
        begin = case((needs_guard(text, beginning), _text(before + '"' + MARK)), else_=begin)
    return begin + func.replace(text, quote, _text('""')) + quote


def _text(value: str) -> ColumnElement[str]:
    return literal_column("'" + value.replace("'", "''") + "'", Text())
