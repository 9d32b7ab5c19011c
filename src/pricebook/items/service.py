"""What can be done with items."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.conditions import Conditions
from pricebook.core.database import violated
from pricebook.core.outbox import Event, record
from pricebook.core.pagination import CursorInvalid, decode_cursor, encode_cursor
from pricebook.core.principal import Principal
from pricebook.core.reading import ReadPool, Row
from pricebook.core.schemas import Id, MomentIn, Money, Text
from pricebook.items import queries
from pricebook.items.errors import ItemNotFound, SkuContended, SkuMismatch, SkuTaken
from pricebook.items.events import ItemCreated, ItemDeleted, ItemPriceChanged, ItemUpdated
from pricebook.items.models import SKU_IS_UNIQUE, Item
from pricebook.items.queries import visible_to
from pricebook.items.schemas import (
    ItemBySku,
    ItemFilters,
    ItemIn,
    ItemPatch,
    ItemQuery,
    SuggestQuery,
)

_CURSORS: dict[str, TypeAdapter[Any]] = {
    "created_at": TypeAdapter(tuple[MomentIn, Id]),
    "updated_at": TypeAdapter(tuple[MomentIn, Id]),
    "price": TypeAdapter(tuple[Money, Id]),
    "name": TypeAdapter(tuple[Text, Id]),
    "sku": TypeAdapter(tuple[Text, Id]),
}
_TRIES = 5


async def get_item(
    reads: ReadPool, reader: Principal | None, item_id: UUID, fields: str | None = None
) -> Row:
    """Return `json`, what the reader may see of an item, and its version."""
    statement = queries.item_by_id(visible_to(reader, fields))
    row = await reads.row(statement, item_id=item_id)
    if row is None:
        raise ItemNotFound(item_id=item_id)
    return row


async def get_item_by_sku(
    reads: ReadPool, reader: Principal, sku: str, fields: str | None = None
) -> Row:
    """Return `json`, what the reader may see of an item, and its id and version."""
    row = await reads.row(queries.item_by_sku(visible_to(reader, fields)), sku=sku)
    if row is None:
        raise ItemNotFound(sku=sku)
    return row


async def get_name(reads: ReadPool, item_id: UUID) -> Row:
    """Return an item's name."""
    row = await reads.row(queries.item_name(), item_id=item_id)
    if row is None:
        raise ItemNotFound(item_id=item_id)
    return row


async def list_items(
    reads: ReadPool, reader: Principal | None, query: ItemQuery
) -> tuple[list[Row], str | None]:
    """Return a page, and the cursor of the next one if there is one; each row has its `json`.

    Raises:
        CursorInvalid: The cursor is not of a list in this order.

    """
    values = queries.filter_values(query)
    statement = queries.items_page(
        visible_to(reader, query.fields),
        query.sort,
        frozenset(values),
        is_first=query.cursor is None,
    )
    if query.cursor is not None:
        values |= _read_cursor(query.cursor, query.sort)
    rows = await reads.rows(statement, limit=query.limit + 1, **values)
    if len(rows) <= query.limit:
        return rows, None
    last = rows[query.limit - 1]
    end = (last[query.sort.removeprefix("-")], last["id"])
    return rows[: query.limit], encode_cursor(query.sort, end)


def _read_cursor(cursor: str, sort: str) -> dict[str, Any]:
    found = decode_cursor(cursor, sort, 2)
    try:
        after, after_id = _CURSORS[sort.removeprefix("-")].validate_python(found)
    except ValidationError as error:
        raise CursorInvalid(pointer="query/cursor") from error
    return {"after": after, "after_id": after_id}


async def count_items(reads: ReadPool, filters: ItemFilters) -> int:
    """Return how many items pass the filters."""
    values = queries.filter_values(filters)
    return int(await reads.value(queries.items_count(frozenset(values)), **values))


async def suggest_items(reads: ReadPool, query: SuggestQuery) -> list[Row]:
    """Return items that the typed text may mean, the likeliest first."""
    return await reads.rows(
        queries.suggestions(),
        typed=query.q,
        word_0=queries.like_pattern(query.q),
        limit=query.limit,
    )


async def create_item(session: AsyncSession, new: ItemIn) -> Item:
    """Add an item.

    Raises:
        SkuTaken: Another item has its SKU.

    """
    item = Item(**new.model_dump())
    session.add(item)
    with sku_must_be_free():
        await session.flush()
    record(session, created(item))
    return item


async def replace_item(
    session: AsyncSession, item_id: UUID, new: ItemIn, conditions: Conditions
) -> Item:
    """Give an item all new values."""
    item = await _get_to_change(session, item_id, conditions)
    return await _edit(session, item, new.model_dump())


async def update_item(
    session: AsyncSession, item_id: UUID, patch: ItemPatch, conditions: Conditions
) -> Item:
    """Give an item the new values that were sent."""
    item = await _get_to_change(session, item_id, conditions)
    return await _edit(session, item, patch.changes())


async def delete_item(session: AsyncSession, item_id: UUID, conditions: Conditions) -> None:
    """Remove an item."""
    item = await _get_to_change(session, item_id, conditions)
    await session.delete(item)
    record(session, deleted(item))


async def put_item_by_sku(
    session: AsyncSession, sku: str, new: ItemBySku, conditions: Conditions
) -> tuple[Item, bool]:
    """Replace the item with this SKU, or add it; return it, and whether it was added.

    Raises:
        SkuMismatch: The body names another SKU.

    """
    values = {**new.model_dump(), "sku": sku}
    if "sku" in new.model_fields_set and new.sku != sku:
        raise SkuMismatch(pointer="/sku")
    for _ in range(_TRIES):
        item = await session.scalar(queries.SKU_TO_CHANGE, {"sku": sku})
        if item is not None:
            conditions.check(*etags(item.id, item.version))
            return await _edit(session, item, values), False
        conditions.check()
        if (item := await _add_unless_taken(session, values)) is not None:
            record(session, created(item))
            return item, True
    raise SkuContended


async def _add_unless_taken(session: AsyncSession, values: Mapping[str, Any]) -> Item | None:
    """Add an item, unless a request at the same time has added one with this SKU."""
    new = insert(Item).values(**values).on_conflict_do_nothing(constraint=SKU_IS_UNIQUE)
    return await session.scalar(new.returning(Item))


async def _get_to_change(session: AsyncSession, item_id: UUID, conditions: Conditions) -> Item:
    """Lock the item's row first: what is checked here still holds at the commit."""
    item = await session.scalar(queries.ITEM_TO_CHANGE, {"item_id": item_id})
    if item is None:
        raise ItemNotFound(item_id=item_id)
    conditions.check(*etags(item.id, item.version))
    return item


async def _edit(session: AsyncSession, item: Item, values: Mapping[str, Any]) -> Item:
    events = edit(item, values)
    if events:
        with sku_must_be_free():
            await session.flush()
    for event in events:
        record(session, event)
    return item


@contextmanager
def sku_must_be_free(pointer: str = "/sku") -> Iterator[None]:
    """Refuse, naming that part of the request, what would give two items one SKU."""
    try:
        yield
    except IntegrityError as error:
        if violated(error) == SKU_IS_UNIQUE:
            raise SkuTaken(pointer=pointer) from error
        raise


def etags(item_id: UUID, version: int) -> tuple[str, str]:
    """Return the entity tags of an item: as itself, and as whatever has its SKU.

    An SKU can pass to a new item, whose versions begin anew; so the second holds the id as well.
    """
    return f'"{version}"', f'"{version}-{item_id}"'


def edit(item: Item, values: Mapping[str, Any]) -> list[Event]:
    """Give an item new values; return what is to be told, which is nothing if none is new."""
    old_price, old_currency = item.price, item.currency
    changed = item.edit(values)
    if not changed:
        return []
    events: list[Event] = [ItemUpdated(**_facts(item), changed=changed)]
    if not {"price", "currency"}.isdisjoint(changed):
        events.append(
            ItemPriceChanged(
                **_facts(item),
                name=item.name,
                old_price=old_price,
                new_price=item.price,
                old_currency=old_currency,
                currency=item.currency,
            )
        )
    return events


def created(item: Item) -> ItemCreated:
    """Tell of a new item."""
    return ItemCreated(**_facts(item), name=item.name, price=item.price, currency=item.currency)


def deleted(item: Item) -> ItemDeleted:
    """Tell of an item that is gone."""
    return ItemDeleted(**_facts(item))


def _facts(item: Item) -> dict[str, Any]:
    return {"item_id": item.id, "sku": item.sku, "tags": item.tags}
