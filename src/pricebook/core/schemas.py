"""What every input and output model is made of."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)


def _storable(text: str) -> str:
    """PostgreSQL's text cannot hold U+0000."""
    if "\x00" in text:
        message = "must not hold the character U+0000"
        raise ValueError(message)
    return text


_NUMBER_LENGTH = 40
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def _plain_number(value: object) -> object:
    """Python calls True a number, and "1_000" or Arabic digits; a price list does not."""
    is_plain = not isinstance(value, str) or (
        len(value) <= _NUMBER_LENGTH and _PLAIN_NUMBER.fullmatch(value.strip())
    )
    if isinstance(value, bool) or not is_plain:
        message = "must be a decimal number, such as 12.50"
        raise ValueError(message)
    return value


def _number(most: str) -> WithJsonSchema:
    """Describe what a client may send: pydantic's own description allows any text."""
    text = {"type": "string", "maxLength": _NUMBER_LENGTH, "pattern": f"^{_PLAIN_NUMBER.pattern}$"}
    number = {"type": "number", "minimum": 0, "maximum": float(most)}
    return WithJsonSchema({"anyOf": [text, number], "examples": ["12.5000"]})


_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _rfc_3339(value: object) -> object:
    """Pydantic would take a bare number for seconds, or for milliseconds if it is large."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        message = "must be a date and time with its offset, such as 2030-01-31T09:00:00Z"
        raise ValueError(message)
    return value


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        message = "must lie in the years 1 to 9999, in UTC"
        raise ValueError(message) from error


def on_one_line(text: str) -> str:
    """Refuse control characters and line breaks."""
    if _CONTROL.search(text):
        message = "must not hold control characters or line breaks"
        raise ValueError(message)
    return text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Text = Annotated[str, AfterValidator(_storable)]
"""Any text that PostgreSQL can store."""

Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(on_one_line),
]
"""One short line of text: a name."""

SearchText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(_storable),
]
"""What a person types into a search box."""

_MONEY_STEP = Decimal("0.0001")

Money = Annotated[
    Decimal,
    BeforeValidator(_plain_number),
    Field(ge=0, max_digits=14, decimal_places=4),
    AfterValidator(lambda amount: amount.quantize(_MONEY_STEP)),
    _number("9999999999.9999"),
]
"""An amount of money, NUMERIC(14,4): string or number in, never rounded, excess scale refused."""

_PERCENT_STEP = Decimal("0.001")

Percent = Annotated[
    Decimal,
    BeforeValidator(_plain_number),
    Field(ge=0, le=100, max_digits=6, decimal_places=3),
    AfterValidator(lambda rate: rate.quantize(_PERCENT_STEP)),
    _number("100"),
]
"""A rate in per cent, NUMERIC(6,3)."""

DecimalOut = Annotated[Decimal, PlainSerializer(str, return_type=str, when_used="json")]
"""A decimal number, written as a JSON string so that no reader makes a float of it."""

Moment = datetime
"""A moment on its way out: PostgreSQL gives it in UTC, JSON has it as RFC 3339 does."""

MomentIn = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_utc)]
"""A moment that a client sends: RFC 3339, with its offset."""

Id = UUID


class Input(BaseModel):
    """What a client sends: unknown fields are refused, and errors never show the input."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, str_max_length=20_000
    )

    @model_validator(mode="before")
    @classmethod
    def _is_no_number(cls, given: object) -> object:
        """FastAPI reads objects by their attributes too, and a Decimal is an object."""
        if isinstance(given, Decimal):
            message = "must be an object"
            raise ValueError(message)  # noqa: TRY004 -- pydantic reports ValueError, not TypeError
        return given


class Output(BaseModel):
    """What a client gets: just the fields that stand here, read from a row or an object."""

    model_config = ConfigDict(from_attributes=True)


def absent() -> Any:  # noqa: ANN401 -- it stands in for a default of any type
    """Mark a field that may be left out, which is not the same as being null."""
    return Field(default=None, validate_default=False, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def unchanged() -> Any:  # noqa: ANN401 -- likewise
    """Mark a field of a `Patch` that stays as it is when it is left out."""
    return absent()


class Patch(Input):
    """A partial change: what is left out stays, `null` clears where the field allows it."""

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent, and only those."""
        return self.model_dump(exclude_unset=True)
