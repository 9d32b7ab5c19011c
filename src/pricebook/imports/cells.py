"""Cells: what stands in a file, and the value that it means, as PostgreSQL reads it.

It reads what is beyond doubt, which is nearly all of most files. What `is_plain` doubts is left to
`ItemPatch` itself (`judging`), so that a file is held to the rules of the API in every case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_extra_types.currency_code import Currency
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    and_,
    any_,
    case,
    cast,
    exists,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from pricebook.core.guarding import unguard, unguarded
from pricebook.imports.staging import Stage, items
from pricebook.items.schemas import ItemIn

# Control characters, and the spaces of Unicode that `strip` takes away.
UNUSUAL = "[\x01-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_PRINTABLE_ASCII_LACKS = "[^ -~]"
_AMOUNT = r"^[0-9]{1,10}(\.[0-9]{1,4})?$"
_RATE = r"^[0-9]{1,2}(\.[0-9]{1,3})?$"
_CURRENCIES = "'{" + ",".join(sorted(Currency.allowed_currencies)) + "}'"
# A B-tree takes no more.
_LONGEST_KEY_BYTES = 2_000
_MOST_TAGS = 50
_LONGEST_PROSE = 10_000

Cell = ColumnElement[str]


@dataclass(frozen=True, slots=True)
class Habits:
    """How the one who sent a file writes cells."""

    is_guarded: bool = True
    """Whether an apostrophe may stand before what a spreadsheet would run; see `core.guarding`."""
    has_decimal_comma: bool = False

    def text(self, cell: str) -> str:
        """Return what is meant by a cell."""
        return unguard(cell) if self.is_guarded else cell

    def text_in_sql(self, cell: Cell) -> Cell:
        """Have PostgreSQL do what `text` does."""
        return unguarded(cell) if self.is_guarded else cell

    def number_in_sql(self, cell: Cell) -> Cell:
        """Return a number with its decimal point; what is none is none after it, too."""
        number = self.text_in_sql(cell)
        return func.translate(number, ".,", ",.") if self.has_decimal_comma else number


def is_plain(stage: Stage, habits: Habits) -> ColumnElement[bool]:
    """Whether a row can be read here; null may mean that it cannot."""
    sent = stage.sent.c
    rules = (_RULES[name](habits, sent[name]) for name in stage.columns if name != "tags")
    conditions = [sent.problem.is_(None), *rules]
    if "tags" in stage.columns:
        known = stage.tag_sets.c.cell
        conditions.append(exists().where(known == sent.tags).correlate(stage.sent))
    return and_(*conditions)


def value(stage: Stage, habits: Habits, name: str) -> ColumnElement[Any]:
    """Return the value of a plain cell."""
    cell = stage.sent.c[name]
    if name == "tags":
        return stage.tag_sets.c.tags
    if name in {"price", "cost", "tax_rate"}:
        number = cast(habits.number_in_sql(cell), items.c[name].type)
        empty = {"cost": null(), "tax_rate": _default_rate()}
        return case((cell == "", empty[name]), else_=number) if name in empty else number
    text = habits.text_in_sql(cell)
    if name == "name":
        return func.btrim(text)
    if name == "currency":
        return func.upper(text)
    return text if name == "sku" else case((cell == "", null()), else_=text)


def _default_rate() -> ColumnElement[Any]:
    return cast(ItemIn.model_fields["tax_rate"].default, items.c.tax_rate.type)


def plain_tags(stage: Stage, habits: Habits) -> Select[*tuple[Any, ...]]:
    """Select the distinct cells of tags that are plain, and the tags that each means."""
    cells = select(stage.sent.c.tags.label("cell")).distinct().subquery("cells")
    text = habits.text_in_sql(cells.c.cell)
    one: ColumnElement[str] = func.unnest(func.string_to_array(text, ";")).column_valued("one")
    tag = func.btrim(one)
    found = select(
        func.array_agg(aggregate_order_by(tag.distinct(), tag)).label("tags"),
        func.count().label("count"),
        func.bool_and(func.char_length(tag).between(1, 50)).label("is_plain"),
    ).lateral("found")
    none = cast([], items.c.tags.type)
    return (
        select(cells.c.cell, func.coalesce(found.c.tags, none))
        .join(found, true())
        .where(
            func.octet_length(cells.c.cell) <= _LONGEST_KEY_BYTES,
            not_(text.regexp_match(UNUSUAL)),
            func.coalesce(found.c.is_plain, true()),
            found.c.count <= _MOST_TAGS,
        )
    )


def _is_sku(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    text = habits.text_in_sql(cell)
    return and_(
        func.char_length(text).between(1, 64),
        not_(text.regexp_match(_PRINTABLE_ASCII_LACKS)),
        text == func.btrim(text),
    )


def _is_name(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    text = habits.text_in_sql(cell)
    return and_(
        func.char_length(func.btrim(text)).between(1, 200), not_(text.regexp_match(UNUSUAL))
    )


def _is_prose(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    return func.char_length(habits.text_in_sql(cell)) <= _LONGEST_PROSE


def _is_price(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    return habits.number_in_sql(cell).regexp_match(_AMOUNT)


def _is_cost(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    return or_(cell == "", _is_price(habits, cell))


def _is_rate(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    return or_(cell == "", habits.number_in_sql(cell).regexp_match(_RATE))


def _is_currency(habits: Habits, cell: Cell) -> ColumnElement[bool]:
    # A literal, for which PostgreSQL makes a hash table.
    known = any_(literal_column(_CURRENCIES, ARRAY(Text)))
    return func.upper(habits.text_in_sql(cell)) == known


_RULES: dict[str, Callable[[Habits, Cell], ColumnElement[bool]]] = {
    "sku": _is_sku,
    "name": _is_name,
    "description": _is_prose,
    "price": _is_price,
    "currency": _is_currency,
    "tax_rate": _is_rate,
    "cost": _is_cost,
    "notes": _is_prose,
}
