"""What clients ask of an export."""

from typing import Literal

from pydantic import Field

from pricebook.core.csv_lines import CsvForm, Delimiter
from pricebook.core.schemas import Input
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
