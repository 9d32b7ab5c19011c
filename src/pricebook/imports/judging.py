"""Judging: the rows that are not plain, read by the rules of the API themselves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pricebook.imports.cells import Habits
from pricebook.items.schemas import ItemIn, ItemPatch

LONGEST_CELL = 20_000
SHOWN_CHARACTERS = 100
_EXAMPLES = ("12.50", "12,50")
_AMOUNTS = frozenset({"price", "cost", "tax_rate"})
_NEEDED = frozenset(name for name, one in ItemIn.model_fields.items() if one.is_required())

_WITH_COMMA = re.compile(r"\s*[0-9]+,[0-9]{1,4}\s*")
_WITH_POINT = re.compile(r"\s*[0-9]+\.[0-9]{1,4}\s*")
_GROUPED = re.compile(r"\s*[0-9]{1,3}([,.'\u2019 \u00a0\u202f][0-9]{3})+([,.][0-9]*)?\s*")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row is not taken."""

    column: str | None
    """None: the row as a whole."""
    value: str | None
    """What was meant by the cell; only its beginning if it is long."""
    detail: str


def judged(
    problem: str | None, cells: Mapping[str, str], habits: Habits
) -> tuple[dict[str, Any], list[Refusal]]:
    """Return the values of a row, or else what is wrong with it."""
    if problem is not None:
        return {}, [Refusal(None, None, problem)]
    texts = {name: habits.text(cell) for name, cell in cells.items()}
    refusals = {
        name: Refusal(name, text[:SHOWN_CHARACTERS], words)
        for name, text in texts.items()
        if (words := _plainly_wrong(name, text, habits))
    }
    wanted = {
        name: _value(name, cells[name], text, habits)
        for name, text in texts.items()
        if name not in refusals
    }
    try:
        return ItemPatch.model_validate(wanted).changes(), list(refusals.values())
    except ValidationError as error:
        for found in error.errors(include_url=False):
            name = str(found["loc"][0])
            refusals.setdefault(name, _refusal(found, name, texts[name], habits))
    return {}, [refusals[name] for name in cells if name in refusals]


def _plainly_wrong(name: str, text: str, habits: Habits) -> str:
    """Say in words of spreadsheets what the rules of the API have other words for."""
    if len(text) > LONGEST_CELL:
        return f"must have at most {LONGEST_CELL} characters"
    if name in _NEEDED and not text.strip():
        return "must not be empty"
    return _wrong_number(text, habits) if name in _AMOUNTS else ""


def _wrong_number(text: str, habits: Habits) -> str:
    if habits.has_decimal_comma:
        if _GROUPED.fullmatch(text) and "." in text:
            return "must be without thousands separators, such as 1234,50"
        return "must have a decimal comma, such as 12,50" if "." in text else ""
    if _WITH_COMMA.fullmatch(text) and not _GROUPED.fullmatch(text):
        return "must have a decimal point, such as 12.50; or choose the decimal comma"
    if _GROUPED.fullmatch(text) and not _WITH_POINT.fullmatch(text):
        return "must be without thousands separators, such as 1234.50"
    return ""


def _value(name: str, cell: str, text: str, habits: Habits) -> object:
    if name == "tags":
        return text.split(";") if text else []
    if name in _AMOUNTS and text and habits.has_decimal_comma:
        return text.replace(",", ".")
    if cell:
        return text
    return None if name in _NULLABLE else _DEFAULTS.get(name, text)


_NULLABLE = frozenset({"description", "cost", "notes"})
_DEFAULTS = {"tax_rate": ItemIn.model_fields["tax_rate"].default}


def _refusal(found: Mapping[str, Any], name: str, text: str, habits: Habits) -> Refusal:
    where = found["loc"][1:]
    shown = text.split(";")[where[0]] if name == "tags" and where else text
    words = _words(found, name)
    if name in _AMOUNTS and habits.has_decimal_comma:
        words = words.replace(*_EXAMPLES).replace("point", "comma")
    return Refusal(name, shown[:SHOWN_CHARACTERS], words)


_WORDS = {
    "decimal_max_places": "must have at most {decimal_places} places after the point",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_long": "must be at most {max_length}",
}
_NO_CURRENCY = "must be a code of ISO 4217, such as EUR"


def _words(found: Mapping[str, Any], name: str) -> str:
    """Say what is wrong as one who keeps a table would; what is not foreseen, as the API does."""
    if name == "currency":
        return _NO_CURRENCY
    if (words := _WORDS.get(found["type"])) is not None:
        return words.format(**found["ctx"])
    return str(found["msg"]).removeprefix("Value error, ")
