"""What the health routes answer."""

from enum import StrEnum

from pydantic import Field

from pricebook.core.schemas import Output


class Status(StrEnum):
    """How a part, or the whole, is doing."""

    OK = "ok"
    FAILING = "failing"


class Part(Output):
    """One thing that the service leans on."""

    name: str
    status: Status
    is_critical: bool = Field(description="Whether nothing can be answered without it.")
    detail: str


class Health(Output):
    """How the service is doing: failing if a critical part is."""

    status: Status
    parts: list[Part]


class Liveness(Output):
    """The process runs and answers; it says nothing of what it leans on."""

    status: Status = Status.OK
