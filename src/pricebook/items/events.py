"""The facts about items. None tells what an internal field holds."""

from typing import ClassVar
from uuid import UUID

from pricebook.core.outbox import Event
from pricebook.core.principal import Role
from pricebook.core.schemas import DecimalOut


class ItemEvent(Event):
    """A fact about one item, and what receivers choose by."""

    subject: ClassVar[str] = "item_id"
    audience: ClassVar[Role] = Role.VIEWER

    item_id: UUID
    sku: str
    tags: list[str]


class ItemCreated(ItemEvent):
    """An item was added."""

    type: ClassVar[str] = "item.created"

    name: str
    price: DecimalOut
    currency: str


class ItemUpdated(ItemEvent):
    """Fields of an item changed; `changed` names them."""

    type: ClassVar[str] = "item.updated"

    changed: list[str]


class ItemPriceChanged(ItemEvent):
    """An item costs something else, or costs it in another currency."""

    type: ClassVar[str] = "item.price_changed"

    name: str
    old_price: DecimalOut
    new_price: DecimalOut
    old_currency: str
    currency: str


class ItemDeleted(ItemEvent):
    """An item was removed."""

    type: ClassVar[str] = "item.deleted"
