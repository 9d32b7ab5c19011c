"""What an export is made of: a statement whose rows are lines, and what goes around them."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from pricebook.core.clock import now
from pricebook.core.csv_lines import CsvForm, csv_head
from pricebook.core.principal import Principal
from pricebook.core.reading import Compiled
from pricebook.core.snapshots import Snapshot
from pricebook.exports.errors import FieldUnknown, UsersForAdmins
from pricebook.exports.schemas import (
    CsvQuery,
    ExportQuery,
    Format,
    ItemsAsCsv,
    ItemsAsJson,
    Resource,
    UsersAsCsv,
    UsersAsJson,
)
from pricebook.items import queries as items
from pricebook.items.schemas import ItemFilters
from pricebook.users import queries as users
from pricebook.users.schemas import UserFilters, UserOut

QUERIES: Mapping[tuple[Resource, Format], type[ExportQuery]] = {
    ("items", "csv"): ItemsAsCsv,
    ("items", "jsonl"): ItemsAsJson,
    ("users", "csv"): UsersAsCsv,
    ("users", "jsonl"): UsersAsJson,
}
"""What may be asked of each export."""

_MEDIA_TYPES: Mapping[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl",
}
# What an import takes, so that what came out can go in.
_ITEM_CELLS = (
    "sku", "name", "description", "price", "currency", "tax_rate", "tags", "cost", "notes",
)  # fmt: skip
_USER_CELLS = tuple(UserOut.model_fields)


@dataclass(frozen=True, slots=True)
class Export:
    """One export: what it reads, and how it is written."""

    head: bytes
    """What goes before the first line."""
    statement: Compiled
    """Each of its rows is a line."""
    count: Compiled
    """How many lines there are."""
    values: Mapping[str, Any]
    """For both statements, by name."""
    media_type: str
    filename: str


def export_of(resource: Resource, form: Format, reader: Principal, query: ExportQuery) -> Export:
    """Return the export that `query`, of the class in `QUERIES`, asks for.

    Raises:
        FieldUnknown: One of the fields does not exist.
        FieldHidden: One of them is not for this reader.
        UsersForAdmins: The reader may not see users.

    """
    return _EXPORTS[resource](form, reader, query)


async def body(snapshot: Snapshot, export: Export) -> AsyncGenerator[bytes, None]:
    """Yield the whole export; nothing comes before the statement has given its first rows."""
    head = export.head
    async for block in snapshot.blocks(export.statement, export.values):
        yield head + block
        head = b""
    if head:
        yield head


async def rows_of(snapshot: Snapshot, export: Export) -> int:
    """Count the lines of an export in the snapshot that it is read from."""
    rows: int = await snapshot.value(export.count, export.values)
    return rows


def _items(form: Format, reader: Principal, query: ExportQuery) -> Export:
    assert isinstance(query, ItemFilters)  # noqa: S101 -- see QUERIES
    seen = items.visible_to(reader, query.fields)
    is_csv = isinstance(query, CsvQuery)
    if is_csv and query.fields is None:
        seen = tuple(name for name in seen if name in _ITEM_CELLS)
    values = items.filter_values(query)
    given = frozenset(values)
    return Export(
        head=_head(seen, query),
        statement=items.items_to_export(seen, _csv_form(query), given),
        count=items.items_count(given),
        values=values,
        media_type=_MEDIA_TYPES[form],
        filename=_filename("items", form),
    )


def _users(form: Format, reader: Principal, query: ExportQuery) -> Export:
    assert isinstance(query, UserFilters)  # noqa: S101 -- see QUERIES
    if not reader.is_admin:
        raise UsersForAdmins
    shown = _chosen_of_users(query.fields)
    return Export(
        head=_head(shown, query),
        statement=Compiled(users.to_export(query, shown, _csv_form(query))),
        count=Compiled(users.count_of(query)),
        values={},
        media_type=_MEDIA_TYPES[form],
        filename=_filename("users", form),
    )


_EXPORTS = {"items": _items, "users": _users}


def _chosen_of_users(fields: str | None) -> tuple[str, ...]:
    if fields is None:
        return _USER_CELLS
    wanted = fields.split(",")
    for name in wanted:
        if name not in _USER_CELLS:
            raise FieldUnknown(pointer=f"query/fields/{name}")
    return tuple(name for name in _USER_CELLS if name in wanted)


def _csv_form(query: ExportQuery) -> CsvForm | None:
    return query.form if isinstance(query, CsvQuery) else None


def _head(names: tuple[str, ...], query: ExportQuery) -> bytes:
    form = _csv_form(query)
    return csv_head(names, form) if form else b""


def _filename(resource: Resource, form: Format) -> str:
    return f"{resource}-{now():%Y-%m-%d}.{form}"
