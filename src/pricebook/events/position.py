"""Where a reader stands in the log, exactly, although transactions commit out of order.

PostgreSQL numbers transactions as they begin to write, and they commit in any order. So no single
number tells what a reader has seen; a snapshot does: all below `xmax` has ended, but for those
that were still running. Whatever commits later is "not seen yet" by this very definition, so that
it is read when it commits, nothing is passed over, and nothing waits for the slowest transaction.

The numbers mean something in one log only: a restored database has another, though it holds the
same events. So a position names its log.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

_PLACE = re.compile(
    r"(?:([0-9a-f]{8})-)?([0-9]{1,19})\.((?:[0-9]{1,19}(?:,[0-9]{1,19})*)?)(?:\.([0-9]{1,19})\.([0-9a-f]{32}))?"
)
_NO_PLACE = "no place in a log"
_NO_EVENT = UUID(int=0)
_BEYOND_ANY_TRANSACTION = 2**63


@dataclass(frozen=True, slots=True)
class Position:
    """Which transactions have been read: all before `xmax`, except those in `running`."""

    xmax: int
    running: tuple[int, ...] = ()
    log: str = ""
    """Which log that is in; see `queries.snapshot`."""

    @classmethod
    def of_snapshot(cls, text: str) -> "Position":
        """Read a `pg_snapshot` as PostgreSQL writes it, `xmin:xmax:running,running`, of `log-`."""
        log, _, snapshot = text.rpartition("-")
        _xmin, xmax, running = snapshot.split(":")
        return cls(int(xmax), tuple(sorted(map(int, filter(None, running.split(","))))), log)

    def precedes(self, now: "Position") -> bool:
        """Whether a reader can go on from here to `now`: they are of one log, in this order."""
        return self.log == now.log and self.xmax <= now.xmax

    def sees(self, transaction_id: int) -> bool:
        """Whether the transaction has been read."""
        return transaction_id < self.xmax and transaction_id not in self.running

    def after(self, transaction_id: int, now: "Position") -> "Position":
        """Return where a reader stands who goes on to `now` in order, and ends with one of them.

        It has read what it had before, and what `now` sees up to and including `transaction_id`.
        """
        still = (one for one in self.running if one > transaction_id or one in now.running)
        new = (one for one in now.running if self.xmax <= one <= transaction_id)
        running = tuple(sorted((*still, *new)))
        return Position(max(self.xmax, transaction_id + 1), running, now.log)

    def __str__(self) -> str:
        """Write it as short as it may be: what was running lies close below `xmax`."""
        running = ",".join(str(self.xmax - one) for one in self.running)
        return f"{self.log}-{self.xmax}.{running}" if self.log else f"{self.xmax}.{running}"


@dataclass(frozen=True, slots=True)
class Place:
    """A position, perhaps within a transaction: of that one, only the events up to `event_id`."""

    position: Position
    transaction_id: int = 0
    event_id: UUID = _NO_EVENT

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read what `__str__` wrote.

        Raises:
            ValueError: It is nothing that was written so.

        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError(_NO_PLACE)
        xmax = int(found[2])
        running = tuple(sorted(xmax - int(one) for one in found[3].split(",") if one))
        position = Position(xmax, running, found[1] or "")
        place = cls(position, int(found[4]), UUID(found[5])) if found[4] else cls(position)
        is_below = all(0 < one < xmax for one in running)
        is_within = found[4] is None or position.sees(place.transaction_id)
        if xmax >= _BEYOND_ANY_TRANSACTION or not is_below or not is_within:
            raise ValueError(_NO_PLACE)
        return place

    def has_read(self, transaction_id: int, event_id: UUID) -> bool:
        """Whether an event lies behind this place."""
        if transaction_id == self.transaction_id:
            return event_id <= self.event_id
        return self.position.sees(transaction_id)

    def __str__(self) -> str:
        """Write it as the id of a server-sent event: short, on one line, and not to be read."""
        if self.transaction_id == 0:
            return str(self.position)
        return f"{self.position}.{self.transaction_id}.{self.event_id.hex}"


BEGINNING = Place(Position(0))


@dataclass(frozen=True, slots=True)
class Span:
    """What lies between a place and a later snapshot.

    All that the snapshot sees is visible to every statement that begins after it, so the span can
    be read later, in pages, over other connections, and is always the same.
    """

    start: Place
    now: Position

    def bounds(self) -> dict[str, Any]:
        """Return the values of `queries.events_between` that say from where to where."""
        start = self.start.position
        return {
            "xmax": start.xmax,
            "ended": [one for one in start.running if self.now.sees(one)],
            "partial": self.start.transaction_id,
            "partial_id": self.start.event_id,
            "now_xmax": self.now.xmax,
            "now_running": list(self.now.running),
        }

    def places(self, events: Iterable[tuple[int, UUID]]) -> Iterator[str]:
        """Yield for each event of the span, in order from its start, the place right after it."""
        position, written, current = self.start.position, "", 0
        for transaction_id, event_id in events:
            if transaction_id != current:
                position, current = position.after(transaction_id, self.now), transaction_id
                written = f"{position}.{transaction_id}."
            yield written + event_id.hex
