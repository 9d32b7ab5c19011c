"""What clients send and get about items."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_extra_types.currency_code import Currency

from pricebook.core.pagination import Cursor, Limit
from pricebook.core.schemas import (
    DecimalOut,
    Id,
    Input,
    Line,
    Moment,
    MomentIn,
    Money,
    Output,
    Patch,
    Percent,
    SearchText,
    Text,
    absent,
    on_one_line,
    unchanged,
)

MAX_OPERATIONS = 1_000


def _printable(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        message = "must be printable, without space around it"
        raise ValueError(message)
    return text


def _without_semicolon(text: str) -> str:
    if ";" in text:
        message = "must not hold a semicolon, which joins tags in CSV"
        raise ValueError(message)
    return text


Sku = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
"""The business's own name for an item: it is compared to the letter, so nothing is trimmed."""

Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=50),
    AfterValidator(on_one_line),
    AfterValidator(_without_semicolon),
]

Tags = Annotated[list[Tag], Field(max_length=50), AfterValidator(lambda tags: sorted(set(tags)))]
"""A set of tags; sorted, so that equal sets look equal."""

Prose = Annotated[Text, Field(max_length=10_000)]

Fields = Annotated[
    str | None,
    Field(
        max_length=300,
        pattern=r"^[a-z_]+(,[a-z_]+)*$",
        description="Return just these fields.",
        examples=["id,price"],
    ),
]

Sort = Literal[
    "created_at", "-created_at", "updated_at", "-updated_at",
    "name", "-name", "sku", "-sku", "price", "-price",
]  # fmt: skip


class ItemContent(Input):
    """All of an item that its keepers decide, but its SKU."""

    name: Line
    description: Prose | None = None
    price: Money
    currency: Currency
    tax_rate: Percent = Decimal("10.500")
    tags: Tags = Field([])
    cost: Money | None = None
    notes: Prose | None = None


class ItemIn(ItemContent):
    """A whole item."""

    sku: Sku


class ItemBySku(ItemContent):
    """A whole item, whose SKU stands in the path."""

    sku: Sku = absent()


class ItemPatch(Patch):
    """Some fields of an item; null clears `description`, `cost` and `notes`."""

    sku: Sku = unchanged()
    name: Line = unchanged()
    description: Prose | None = unchanged()
    price: Money = unchanged()
    currency: Currency = unchanged()
    tax_rate: Percent = unchanged()
    tags: Tags = unchanged()
    cost: Money | None = unchanged()
    notes: Prose | None = unchanged()


class ItemOut(Output):
    """An item, or those of its fields that were asked for; `cost` and `notes` for staff alone."""

    id: Id = absent()
    sku: str = absent()
    name: str = absent()
    description: str | None = absent()
    price: DecimalOut = absent()
    currency: str = absent()
    tax_rate: DecimalOut = absent()
    tags: list[str] = absent()
    cost: DecimalOut | None = absent()
    notes: str | None = absent()
    version: int = absent()
    created_at: Moment = absent()
    updated_at: Moment = absent()


class ItemPublic(Output):
    """What anyone may see of an item."""

    id: Id = absent()
    sku: str = absent()
    name: str = absent()
    description: str | None = absent()
    price: DecimalOut = absent()
    currency: str = absent()
    tags: list[str] = absent()
    updated_at: Moment = absent()


class ItemName(Output):
    """What an item is called."""

    id: Id
    name: str


class ItemSuggestion(Output):
    """An item that the typed text may mean."""

    id: Id
    sku: str
    name: str


class Suggestions(Output):
    """The likeliest first."""

    items: list[ItemSuggestion]


class SuggestQuery(Input):
    """What has been typed so far."""

    q: SearchText
    limit: Annotated[int, Field(ge=1, le=50)] = 10


class ItemFilters(Input):
    """Which items: all that pass every filter given."""

    q: SearchText | None = Field(
        None, description="Words that all stand in the SKU, name or description."
    )
    tag: list[Tag] = Field([], max_length=50, description="Repeat it: all must be there.")
    price_min: Money | None = None
    price_max: Money | None = None
    currency: Currency | None = None
    updated_since: MomentIn | None = None


class ItemQuery(ItemFilters):
    """A page of items: which, in what order, and how much of them."""

    limit: Limit = 50
    cursor: Cursor = None
    sort: Sort = "created_at"
    count: Literal["exact"] | None = Field(
        None, description="Count all that pass, into X-Total-Count."
    )
    fields: Fields = None


class OneItemQuery(Input):
    """How much of an item."""

    fields: Fields = None


class CreateItem(Input):
    """Add an item."""

    op: Literal["create"]
    item: ItemIn


class UpdateItem(Input):
    """Change some fields of an item."""

    op: Literal["update"]
    id: Id
    changes: ItemPatch
    version: int | None = Field(None, description="Only if it still is at this version.")


class DeleteItem(Input):
    """Remove an item."""

    op: Literal["delete"]
    id: Id
    version: int | None = Field(None, description="Only if it still is at this version.")


Operation = Annotated[CreateItem | UpdateItem | DeleteItem, Field(discriminator="op")]


class Batch(Input):
    """Operations that happen in this order, all of them or none."""

    operations: list[Operation] = Field(min_length=1, max_length=MAX_OPERATIONS)


class OperationResult(Output):
    """What became of an operation: the item after it, unless that was deleted."""

    op: Literal["create", "update", "delete"]
    id: Id
    item: ItemOut = absent()


class BatchResults(Output):
    """One result for each operation, in their order."""

    results: list[OperationResult]
