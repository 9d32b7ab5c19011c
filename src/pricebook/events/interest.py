"""What a reader of the log may see of it, and wants to."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pricebook.core.outbox import EVENT_TYPES, types_for
from pricebook.core.principal import Principal
from pricebook.events.errors import EventTypeHidden, EventTypeUnknown
from pricebook.events.schemas import EventFilters


@dataclass(frozen=True, slots=True)
class Interest:
    """Which events, and in whose form. Readers with the same interest are told the same bytes."""

    types: frozenset[str]
    tags: frozenset[str]
    items: frozenset[UUID]
    is_admin: bool

    @classmethod
    def of(cls, reader: Principal, filters: EventFilters) -> "Interest":
        """Every read starts here, so that no one can forget who is asking.

        Raises:
            EventTypeUnknown: There is no such event.
            EventTypeHidden: It is not for this reader.

        """
        readable = frozenset(types_for(reader.role))
        for number, name in enumerate(filters.type):
            if name not in EVENT_TYPES:
                raise EventTypeUnknown(pointer=f"query/type/{number}")
            if name not in readable:
                raise EventTypeHidden(pointer=f"query/type/{number}")
        return cls(
            types=frozenset(filters.type) or readable,
            tags=frozenset(filters.tag),
            items=frozenset(filters.item),
            is_admin=reader.is_admin,
        )

    def includes(self, event_type: str, subject_id: UUID, tags: frozenset[str]) -> bool:
        """Whether an event is of interest; the same in SQL is `queries.events_between`."""
        return (
            event_type in self.types
            and (not self.tags or not self.tags.isdisjoint(tags))
            and (not self.items or subject_id in self.items)
        )

    def values(self) -> dict[str, Any]:
        """Return the filters' values, by the names that the queries take."""
        given: dict[str, Any] = {"types": sorted(self.types)}
        if self.tags:
            given["tags"] = sorted(self.tags)
        if self.items:
            given["items"] = sorted(self.items)
        return given
