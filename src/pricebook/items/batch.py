"""Many operations on items at once: in their order, all of them or none, and set-based."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Table, Uuid, any_, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.outbox import record
from pricebook.items import queries
from pricebook.items.errors import ItemNotFound, SkuTaken, VersionMissing, VersionStale
from pricebook.items.models import SKU_IS_UNIQUE, Item
from pricebook.items.schemas import (
    Batch,
    CreateItem,
    DeleteItem,
    ItemIn,
    ItemOut,
    Operation,
    UpdateItem,
)
from pricebook.items.service import created, deleted, edit, sku_must_be_free

Result = dict[str, Any]
Numbered = tuple[int, Any]

_TABLE: Table = Item.metadata.tables["items"]
_WRITTEN = (*ItemIn.model_fields, "version", "updated_at")
_ADD = insert(Item).on_conflict_do_nothing(constraint=SKU_IS_UNIQUE).returning(Item)
# Else the ORM would send rows that have a null apart from those that have none.
_WITH_NULLS = {"render_nulls": True}
_REMOVE = delete(_TABLE).where(_TABLE.c.id == any_(bindparam("item_ids", type_=ARRAY(Uuid()))))
_NOW = select(func.statement_timestamp(type_=DateTime(timezone=True)))
_REWRITE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("item_id"))
    .values({name: bindparam(f"new_{name}") for name in _WRITTEN})
)


@dataclass(slots=True)
class _Locked:
    """The items that the batch names, locked and detached: they change here, then in one go."""

    session: AsyncSession
    items: dict[UUID, Item]
    now: datetime
    is_match_required: bool
    unwritten: list[dict[str, Any]] = field(default_factory=list)

    def named_by(self, number: int, operation: UpdateItem | DeleteItem) -> Item:
        """Return the item that an operation names, if it is as the operation takes it to be."""
        item = self.items.get(operation.id)
        if item is None:
            raise ItemNotFound(pointer=f"/operations/{number}/id")
        if operation.version is None and self.is_match_required:
            raise VersionMissing(pointer=f"/operations/{number}/version")
        if operation.version not in (None, item.version):
            raise VersionStale(pointer=f"/operations/{number}/version")
        return item

    async def write(self) -> None:
        """Write the items as they are now."""
        if self.unwritten:
            await (await self.session.connection()).execute(_REWRITE, self.unwritten)
            self.unwritten = []


async def apply_batch(
    session: AsyncSession, batch: Batch, *, is_match_required: bool
) -> list[Result]:
    """Carry out the operations; return what became of each.

    Raises:
        ItemNotFound: An operation names an item that is not there.
        SkuTaken: An operation would give two items one SKU.
        VersionStale: An item is not at the version that an operation names.
        VersionMissing: An operation names none, and the service demands one.

    """
    locked = await _lock(session, batch.operations, is_match_required=is_match_required)
    results: list[Result] = []
    for op, run in groupby(enumerate(batch.operations), key=lambda numbered: numbered[1].op):
        results += await _APPLY[op](locked, list(run))
    return results


async def _lock(
    session: AsyncSession, operations: Sequence[Operation], *, is_match_required: bool
) -> _Locked:
    ids = {operation.id for operation in operations if not isinstance(operation, CreateItem)}
    found = await session.scalars(queries.ITEMS_TO_CHANGE, {"item_ids": list(ids)})
    items = {item.id: item for item in found}
    session.expunge_all()
    now = (await session.scalars(_NOW)).one()
    return _Locked(session, items, now, is_match_required)


async def _create(locked: _Locked, run: Sequence[Numbered]) -> list[Result]:
    """Insert them all; whichever PostgreSQL left out has an SKU that is taken."""
    session = locked.session
    new = [operation.item.model_dump() for _, operation in run]
    added = await session.scalars(_ADD, new, execution_options=_WITH_NULLS)
    by_sku = {item.sku: item for item in added}
    results: list[Result] = []
    for number, operation in run:
        item = by_sku.pop(operation.item.sku, None)
        if item is None:
            raise SkuTaken(pointer=f"/operations/{number}/item/sku")
        record(session, created(item))
        results.append({"op": "create", "id": item.id, "item": item})
    return results


async def _update(locked: _Locked, run: Sequence[Numbered]) -> list[Result]:
    results: list[Result] = []
    for number, operation in run:
        item = locked.named_by(number, operation)
        old_sku = item.sku
        if events := edit(item, operation.changes.changes()):
            if item.sku != old_sku:
                # Written alone, so that a refusal can name it.
                await locked.write()
            item.version += 1
            item.updated_at = locked.now
            locked.unwritten.append(_written(item))
            if item.sku != old_sku:
                with sku_must_be_free(f"/operations/{number}/changes/sku"):
                    await locked.write()
        for event in events:
            record(locked.session, event)
        results.append({"op": "update", "id": item.id, "item": ItemOut.model_validate(item)})
    await locked.write()
    return results


async def _delete(locked: _Locked, run: Sequence[Numbered]) -> list[Result]:
    results: list[Result] = []
    for number, operation in run:
        item = locked.named_by(number, operation)
        del locked.items[item.id]
        record(locked.session, deleted(item))
        results.append({"op": "delete", "id": item.id})
    await locked.session.execute(_REMOVE, {"item_ids": [result["id"] for result in results]})
    return results


def _written(item: Item) -> dict[str, Any]:
    values = {f"new_{name}": getattr(item, name) for name in _WRITTEN}
    return {"item_id": item.id, **values}


_APPLY: dict[str, Callable[[_Locked, Sequence[Numbered]], Awaitable[list[Result]]]] = {
    "create": _create,
    "update": _update,
    "delete": _delete,
}
