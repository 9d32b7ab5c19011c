"""What clients send about imports."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from pricebook.core.schemas import Input
from pricebook.imports.dialects import Delimiter, Encoding
from pricebook.imports.dialects import Field as ItemField

_FIELDS = frozenset(get_args(ItemField))


def _mapped(column: str) -> str:
    name, _, field = column.rpartition(":")
    if not name.strip() or field not in _FIELDS:
        message = "must be a column of the file, a colon, and a field of an item: Bezeichnung:name"
        raise ValueError(message)
    if "\x00" in name:
        message = "must not hold the character U+0000"
        raise ValueError(message)
    return column


ColumnMapping = Annotated[
    str, Field(max_length=200, examples=["Bezeichnung:name"]), AfterValidator(_mapped)
]


def _printable(name: str) -> str:
    """Leave out what has no place in a name."""
    return "".join(sign for sign in name if sign.isprintable())


class ImportQuery(Input):
    """How a file is to be read, and what is to be done with it."""

    mode: Literal["dry-run", "apply"] = Field(
        "dry-run", description="`dry-run` tells what `apply` would do, and changes nothing."
    )
    skip_refused: bool = Field(
        False, description="Apply the good rows; else all are applied or none."
    )
    encoding: Encoding = "auto"
    delimiter: Delimiter = "auto"
    decimal: Literal["point", "comma"] = Field(
        "point", description="What stands before the decimals of a price."
    )
    guarded: bool = Field(
        True, description="Take away the apostrophe before what a spreadsheet could run."
    )
    column: list[ColumnMapping] = Field(
        [], max_length=50, description="Repeat it: what a column of the file is, as `Theirs:ours`."
    )
    name: Annotated[str, Field(max_length=200), AfterValidator(_printable)] | None = Field(
        None, description="What the file is called; a form says it by itself."
    )
    notify: bool = Field(True, description="Tell the end of it, by inbox and mail.")

    @property
    def columns(self) -> dict[str, str]:
        """Which field each named column is."""
        return {name: field for name, _, field in (one.rpartition(":") for one in self.column)}
