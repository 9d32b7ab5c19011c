"""What is read of items: pure functions that return a `Select`, and who may see which columns."""

from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    collate,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pricebook.core.csv_lines import CsvForm, line_of
from pricebook.core.principal import Principal
from pricebook.core.reading import as_json, columns_of, compiled_once
from pricebook.items.errors import FieldHidden, FieldUnknown
from pricebook.items.models import Item, Tags
from pricebook.items.schemas import (
    ItemFilters,
    ItemName,
    ItemOut,
    ItemPublic,
    ItemSuggestion,
    Sort,
)

Columns = tuple[str, ...]

_STAFF: Columns = tuple(ItemOut.model_fields)
_VIEWER: Columns = tuple(name for name in _STAFF if name not in {"cost", "notes"})
_PUBLIC: Columns = tuple(ItemPublic.model_fields)

_SEARCH_TEXT: ColumnElement[str] = Item.metadata.tables["items"].c.search_text
_MOST_WORDS = 8
# A suggestion need not be the best of a million: this many that match are ranked.
_CANDIDATES = 200
_LIKE_SPECIAL = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})


def visible_to(reader: Principal | None, fields: str | None = None) -> Columns:
    """Every read starts here, so that no one can forget who is asking; None is anyone at all.

    Raises:
        FieldUnknown: One of `fields` (comma-separated names) does not exist.
        FieldHidden: One of them is not for this reader.

    """
    seen = _PUBLIC if reader is None else _STAFF if reader.is_staff else _VIEWER
    return seen if fields is None else _chosen(seen, fields)


@lru_cache(maxsize=1_000)
def _chosen(seen: Columns, fields: str) -> Columns:
    wanted = fields.split(",")
    for name in wanted:
        if name not in _STAFF:
            raise FieldUnknown(pointer=f"query/fields/{name}")
        if name not in seen:
            raise FieldHidden(pointer=f"query/fields/{name}")
    return tuple(name for name in seen if name in wanted)


def _select(shown: Columns, *others: str) -> Select[*tuple[Any, ...]]:
    """Select what is shown as one JSON object, `json`, and what the service itself needs."""
    return select(
        as_json(columns_of(ItemOut, Item, shown)).label("json"),
        *columns_of(ItemOut, Item, dict.fromkeys(others)),
    )


@compiled_once
def item_by_id(columns: Columns) -> Select[*tuple[Any, ...]]:
    """Take `item_id`; the version, for the ETag, is always there."""
    return _select(columns, "version").where(Item.id == bindparam("item_id", type_=Uuid()))


@compiled_once
def item_by_sku(columns: Columns) -> Select[*tuple[Any, ...]]:
    """Take `sku`; the id and the version, for the ETag, are always there."""
    return _select(columns, "id", "version").where(Item.sku == bindparam("sku", type_=Text()))


@compiled_once
def item_name() -> Select[*tuple[Any, ...]]:
    """Take `item_id`."""
    columns = columns_of(ItemName, Item)
    return select(*columns).where(Item.id == bindparam("item_id", type_=Uuid()))


def _has_word(name: str) -> ColumnElement[bool]:
    """Hold where the text searched has the word in it, whatever the case of either."""
    pattern = func.lower(collate(bindparam(name, type_=Text()), "pg_c_utf8"))
    return _SEARCH_TEXT.like(pattern, escape="\\")


_FILTERS: dict[str, ColumnElement[bool]] = {
    "tags": Item.tags.contains(bindparam("tags", type_=Tags)),
    "price_min": Item.price >= bindparam("price_min", type_=Item.price.type),
    "price_max": Item.price <= bindparam("price_max", type_=Item.price.type),
    "currency": Item.currency == bindparam("currency", type_=Text()),
    "updated_since": Item.updated_at >= bindparam("updated_since", type_=Item.updated_at.type),
    **{name: _has_word(name) for name in (f"word_{number}" for number in range(_MOST_WORDS))},
}


def filter_values(filters: ItemFilters) -> dict[str, Any]:
    """Return the values of the filters that were given, by the names that the queries take."""
    given = filters.model_dump(
        include={"price_min", "price_max", "currency", "updated_since"}, exclude_none=True
    )
    if filters.tag:
        given["tags"] = filters.tag
    if filters.q is not None:
        for number, word in enumerate(filters.q.split(maxsplit=_MOST_WORDS - 1)):
            given[f"word_{number}"] = like_pattern(word)
    return given


def like_pattern(text: str) -> str:
    """Return a pattern for LIKE that finds `text` itself, anywhere."""
    return f"%{text.translate(_LIKE_SPECIAL)}%"


def _filtered(
    statement: Select[*tuple[Any, ...]], given: AbstractSet[str]
) -> Select[*tuple[Any, ...]]:
    return statement.where(*(_FILTERS[name] for name in sorted(given)))


@compiled_once
def items_page(
    columns: Columns, sort: Sort, given: AbstractSet[str], *, is_first: bool
) -> Select[*tuple[Any, ...]]:
    """Take `limit` and the values of `given`; unless `is_first`, `after` and `after_id` too."""
    name = sort.removeprefix("-")
    column = getattr(Item, name)
    statement = _filtered(_select(columns, "id", name), given)
    if not is_first:
        end = tuple_(bindparam("after", type_=column.type), bindparam("after_id", type_=Uuid()))
        here = tuple_(column, Item.id)
        statement = statement.where(here < end if sort.startswith("-") else here > end)
    order = (column.desc(), Item.id.desc()) if sort.startswith("-") else (column, Item.id)
    return statement.order_by(*order).limit(bindparam("limit", type_=BigInteger()))


@compiled_once
def items_to_export(
    columns: Columns, form: CsvForm | None, given: AbstractSet[str]
) -> Select[*tuple[Any, ...]]:
    """Take the values of `given`; each item is a line, of CSV in this form or else of JSON."""
    line = line_of(columns_of(ItemOut, Item, columns), form)
    return _filtered(select(line).select_from(Item), given).order_by(Item.id)


@compiled_once
def items_count(given: AbstractSet[str]) -> Select[*tuple[Any, ...]]:
    """Take the values of `given`."""
    return _filtered(select(func.count()).select_from(Item), given)


@compiled_once
def suggestions() -> Select[*tuple[Any, ...]]:
    """Take `typed` (what was typed), `word_0` (its pattern) and `limit`."""
    found = (
        select(*columns_of(ItemSuggestion, Item))
        .where(_FILTERS["word_0"])
        .limit(_CANDIDATES)
        .subquery()
    )
    typed = func.lower(collate(bindparam("typed", type_=Text()), "pg_c_utf8"))
    likeliest = case(
        (func.lower(found.c.sku) == typed, 0),
        (func.starts_with(func.lower(found.c.sku), typed), 1),
        (func.starts_with(func.lower(found.c.name), typed), 2),
        else_=3,
    )
    return (
        select(found)
        .order_by(likeliest, found.c.name, found.c.id)
        .limit(bindparam("limit", type_=BigInteger()))
    )


ITEM_TO_CHANGE = select(Item).where(Item.id == bindparam("item_id")).with_for_update()
SKU_TO_CHANGE = select(Item).where(Item.sku == bindparam("sku")).with_for_update()
# Always locked in the same order, so that two batches never wait for each other.
ITEMS_TO_CHANGE = (
    select(Item)
    .where(Item.id == any_(bindparam("item_ids", type_=ARRAY(Uuid()))))
    .order_by(Item.id)
    .with_for_update()
)
