"""Events as clients see them, and how they choose among them."""

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from pricebook.core.pagination import Cursor, Limit
from pricebook.core.schemas import Id, Input, Moment, MomentIn, Output, absent
from pricebook.items.schemas import Tag

Sort = Literal["occurred_at", "-occurred_at"]

# A place grows with the transactions that were running at its time.
MAX_PLACE_LENGTH = 20_000


class EventFilters(Input):
    """Which events: all that pass every filter given."""

    type: list[str] = Field([], max_length=50, description="Repeat it: any of these types.")
    tag: list[Tag] = Field([], max_length=50, description="Repeat it: items with any of these.")
    item: list[Id] = Field([], max_length=200, description="Repeat it: any of these items' ids.")


class EventQuery(EventFilters):
    """A page of events: which, in what order."""

    since: MomentIn | None = Field(None, description="Nothing that happened before.")
    sort: Sort = Field("-occurred_at", description="With `-` in front: the newest first.")
    limit: Limit = 50
    cursor: Cursor = None


class StreamQuery(EventFilters):
    """A stream of events: which, and from where on."""

    last_event_id: str | None = Field(
        None,
        max_length=MAX_PLACE_LENGTH,
        description="For clients that cannot send the header `Last-Event-ID`, which goes before.",
    )


class EventOut(Output):
    """A fact, as whoever reads it may know it."""

    id: Id
    type: str
    occurred_at: Moment
    data: dict[str, Any] = Field(description="What the type says of it; see the README.")
    actor_id: UUID | None = absent()
