"""Dialects of CSV: what a file is written in, and which of its columns mean what."""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pricebook.imports.errors import (
    ColumnMissing,
    ColumnsAmbiguous,
    FileUnreadable,
    HeaderUnreadable,
    SkuColumnMissing,
)

Encoding = Literal["auto", "utf-8", "utf-16", "windows-1252"]
Delimiter = Literal["auto", "comma", "semicolon", "tab", "pipe"]
Field = Literal[
    "sku", "name", "description", "price", "currency", "tax_rate", "tags", "cost", "notes"
]

# The first ones first, where a header can be read in several ways.
DELIMITERS: Final[Mapping[str, str]] = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}

# Names of columns, as `_plain` writes them: whatever their case, spaces and punctuation.
_ALSO_CALLED: Final[Mapping[Field, tuple[str, ...]]] = {
    "sku": (
        "article", "article_code", "article_id", "article_no", "article_nr", "article_number",
        "code", "item_code", "item_no", "item_nr", "item_number", "part_no", "part_number",
        "product_code", "product_id", "product_no", "product_number", "sku_code", "sku_number",
        "stock_code", "stock_keeping_unit",
    ),
    "name": (
        "article_name", "item", "item_name", "item_title", "product", "product_name",
        "product_title", "title",
    ),
    "description": (
        "article_description", "details", "item_description", "long_description",
        "product_description",
    ),
    "price": (
        "item_price", "list_price", "net_price", "price_per_unit", "product_price",
        "retail_price", "sales_price", "selling_price", "unit_price",
    ),
    "currency": ("currency_code", "iso_currency", "price_currency"),
    "tax_rate": (
        "tax_percent", "tax_percentage", "vat", "vat_percent", "vat_percentage", "vat_rate",
    ),
    "tags": ("categories", "category", "keywords", "label", "labels", "tag"),
    "cost": ("buying_price", "cost_price", "purchase_price", "unit_cost"),
    "notes": (
        "comment", "comments", "internal_note", "internal_notes", "note", "remark", "remarks",
    ),
}  # fmt: skip

# What an export, or a list of refused rows, has besides.
_READ_ONLY = frozenset({"id", "version", "created_at", "updated_at", "reason", "line"})

_MEANING: Final[Mapping[str, Field]] = {
    name: field for field, also in _ALSO_CALLED.items() for name in (field, *also)
}

_BOMS: Final[Mapping[bytes, str]] = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# How ZIP, and with it .xlsx and .ods, and .xls begin.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_UTF16_SAMPLE_BYTES = 1_000
_UTF16_SHARE = 0.3
_NAME_LENGTH = 100

# A first line that Excel writes and reads.
_SEPARATOR_LINE = re.compile(r"sep=(.)(\r\n|\r|\n)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written."""

    encoding: str
    """As Python names it: utf-8, utf-16-le, utf-16-be or windows-1252."""
    delimiter: str
    """By its name: comma, semicolon, tab or pipe."""
    width: int
    """Cells in the header."""
    positions: tuple[int, ...]
    """Where in a row the `columns` stand."""
    columns: tuple[Field, ...]
    """The fields of an item that the file has, in its order."""
    unknown_columns: tuple[str, ...]
    ignored_columns: tuple[str, ...]
    first_line: int
    """The number of the line after the header; the first of a file is 1."""


def encoding_of(head: bytes, wanted: Encoding) -> tuple[str, int]:
    """Return a file's encoding by its first bytes, and how many of them say nothing else.

    Raises:
        FileUnreadable: It is no text.

    """
    if head.startswith(_WORKBOOKS):
        message = "The file is a workbook or an archive. Save it as CSV, or compress it as gzip."
        raise FileUnreadable(message)
    for bom, encoding in _BOMS.items():
        if head.startswith(bom) and (wanted == "auto" or encoding.startswith(wanted)):
            return encoding, len(bom)
    if wanted in {"auto", "utf-16"} and (encoding := _utf16_of(head)):
        return encoding, 0
    if wanted == "auto":
        return "utf-8" if _is_utf8(head) else "windows-1252", 0
    return "utf-16-le" if wanted == "utf-16" else wanted, 0


def _utf16_of(head: bytes) -> str:
    """Tell UTF-16 without a mark by its zeros: in names of columns every other byte is one."""
    sample = head[:_UTF16_SAMPLE_BYTES]
    first, second = sample[::2].count(0), sample[1::2].count(0)
    enough = len(sample) / 2 * _UTF16_SHARE
    if second > enough > first:
        return "utf-16-le"
    return "utf-16-be" if first > enough > second else ""


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def dialect_of(
    head: str, encoding: str, delimiter: Delimiter, mapping: Mapping[str, str]
) -> Dialect:
    """Read the header, under the delimiter that makes most sense of it.

    Raises:
        JobRefused: No header can be read, it has no SKU, or its names contradict each other.

    """
    separator = _SEPARATOR_LINE.match(head)
    names = _delimiters(delimiter, separator.group(1) if separator else None)
    text = head[separator.end() :] if separator else head
    found = [(name, *_header(text, DELIMITERS[name])) for name in names]
    name, header, lines = max(found, key=lambda one: _sense(one[1], mapping))
    if not header:
        raise HeaderUnreadable
    fields = _fields(header, mapping)
    return Dialect(
        encoding=encoding,
        delimiter=name,
        width=len(header),
        positions=tuple(fields),
        columns=tuple(fields.values()),
        unknown_columns=tuple(
            _shown(one, place)
            for place, one in enumerate(header)
            if place not in fields and _plain(one) not in _READ_ONLY
        ),
        ignored_columns=tuple(
            _shown(one, place)
            for place, one in enumerate(header)
            if place not in fields and _plain(one) in _READ_ONLY
        ),
        first_line=lines + (2 if separator else 1),
    )


def _delimiters(wanted: Delimiter, separator: str | None) -> Iterable[str]:
    if wanted != "auto":
        return (wanted,)
    return [name for name, sign in DELIMITERS.items() if sign == separator] or DELIMITERS


def _header(text: str, delimiter: str) -> tuple[list[str], int]:
    """Return the first record that is not blank, and how many lines it ends after."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next((row for row in reader if any(row)), [])
    except csv.Error:
        header = []
    return header, reader.line_num


def _sense(header: Iterable[str], mapping: Mapping[str, str]) -> int:
    """Count the names that mean something."""
    known = _MEANING.keys() | _READ_ONLY | {_plain(name) for name in mapping}
    return sum(_plain(name) in known for name in header)


def _fields(header: list[str], mapping: Mapping[str, str]) -> dict[int, Field]:
    """Return the field of each place that has one; what is mapped goes before what is guessed."""
    places: dict[Field, int] = {}
    wanted = _wanted(header, mapping)
    for place, name in enumerate(header):
        field = wanted.get(_plain(name)) or _MEANING.get(_plain(name))
        if field is None or (_plain(name) not in wanted and field in wanted.values()):
            continue
        if field in places:
            first = _shown(header[places[field]], places[field])
            raise ColumnsAmbiguous(_two_for(field, first, _shown(name, place)))
        places[field] = place
    if "sku" not in places:
        raise SkuColumnMissing(_without_sku(header))
    return {place: field for field, place in sorted(places.items(), key=lambda one: one[1])}


def _wanted(header: list[str], mapping: Mapping[str, str]) -> dict[str, Field]:
    present = {_plain(name) for name in header}
    wanted: dict[str, Field] = {}
    for theirs, ours in mapping.items():
        if _plain(theirs) not in present:
            message = f"The header has no column “{theirs}”, which is to be “{ours}”."
            raise ColumnMissing(message)
        wanted[_plain(theirs)] = _MEANING[ours]
    return wanted


def _two_for(field: str, first: str, second: str) -> str:
    return (
        f"The columns “{first}” and “{second}” both mean “{field}”. "
        "Remove one, or say which one counts."
    )


def _without_sku(header: list[str]) -> str:
    names = ", ".join(f"“{_shown(name, place)}”" for place, name in enumerate(header[:20]))
    return f"The header names no column for the SKU; it has {names}."


def _shown(name: str, place: int) -> str:
    """Return a column's name as it can be stored and read, or its place."""
    printable = "".join(sign if sign.isprintable() else " " for sign in name)
    return " ".join(printable.split())[:_NAME_LENGTH] or f"column {place + 1}"


def _plain(name: str) -> str:
    """Write a name as they are compared: `Unit price (€)` is `unit_price`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", "_", folded).strip("_")
