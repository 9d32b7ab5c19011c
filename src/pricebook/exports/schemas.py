"""What clients ask of an export."""

from typing import Annotated, Literal

from pydantic import Field

from pricebook.core.csv_lines import CsvForm, Delimiter
from pricebook.core.schemas import Input, Moment, Output
from pricebook.items.schemas import Fields, ItemFilters
from pricebook.users.schemas import UserFilters

Resource = Literal["items", "users"]
Format = Literal["csv", "jsonl"]


class ExportQuery(Input):
    """How much of each row, and whether to count first."""

    fields: Fields = None
    count: Literal["exact"] | None = Field(
        None, description="Count the rows first, into X-Total-Count."
    )


class CsvQuery(ExportQuery):
    """How the CSV is written."""

    delimiter: Delimiter = "comma"
    bom: bool = Field(False, description="Begin with a byte order mark, as spreadsheets like it.")
    guard: bool = Field(
        True, description="Put an apostrophe before cells that a spreadsheet would run as formulas."
    )

    @property
    def form(self) -> CsvForm:
        """How the CSV is written."""
        return CsvForm(delimiter=self.delimiter, has_bom=self.bom, is_guarded=self.guard)


class ItemsAsJson(ItemFilters, ExportQuery):
    """Which items, as JSON lines."""


class ItemsAsCsv(ItemFilters, CsvQuery):
    """Which items, as CSV."""


class UsersAsJson(UserFilters, ExportQuery):
    """Which users, as JSON lines."""


class UsersAsCsv(UserFilters, CsvQuery):
    """Which users, as CSV."""


Compression = Literal["none", "gzip", "zstd"]
Switch = Annotated[bool, Field(strict=True)]


class NewExport(Input):
    """How a file is to be written, and whether its owner is told."""

    format: Format = "csv"
    fields: Fields = None
    delimiter: Delimiter | None = Field(None, description="Of CSV; a comma, unless you say.")
    bom: Switch | None = Field(
        None, description="Of CSV: begin with a byte order mark, as spreadsheets like it."
    )
    guard: Switch | None = Field(
        None,
        description="Of CSV: false leaves cells alone that a spreadsheet would run as formulas.",
    )
    compression: Compression = "none"
    notify: Switch = Field(True, description="Tell me of its end, by inbox and mail.")


class NewItemsExport(NewExport):
    """Items into a file."""

    resource: Literal["items"]
    filters: ItemFilters = ItemFilters()


class NewUsersExport(NewExport):
    """Users into a file."""

    resource: Literal["users"]
    filters: UserFilters = UserFilters()


class LinkQuery(Input):
    """What a link says, for those who come without a token."""

    expires: int | None = Field(None, ge=0, le=2**40, description="Of the link.")
    signature: str | None = Field(None, max_length=100, description="Of the link.")


class FileLink(Output):
    """A link to a file that works without logging in."""

    link: Annotated[
        str | None, Field(description="null: the service has no secret key to sign one with.")
    ]
    expires_at: Moment
