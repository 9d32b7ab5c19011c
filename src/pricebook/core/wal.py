"""Where a server of PostgreSQL stands in the write-ahead log, and whose log that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import literal_column, select

from pricebook.core.primary import WRITTEN_TIMELINE
from pricebook.core.reading import Compiled

_IS_STANDBY = "pg_is_in_recovery()"
# What a standby has replayed is visible on it, what is inserted on a primary may be committed.
_POSITION = (
    f"(CASE WHEN {_IS_STANDBY} THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::bigint"
)
# A standby tells its timeline only of the last checkpoint that it has taken over.
_TIMELINE = (
    f"CASE WHEN {_IS_STANDBY} THEN (pg_control_checkpoint()).timeline_id "
    f"ELSE {WRITTEN_TIMELINE} END"
)

STANDING = Compiled(
    select(
        literal_column(_IS_STANDBY).label("is_standby"),
        literal_column(_POSITION).label("position"),
        literal_column("(pg_control_system()).system_identifier").label("system"),
        literal_column(_TIMELINE).label("timeline"),
        literal_column("current_setting('wal_block_size')::bigint").label("page_bytes"),
        literal_column("pg_size_bytes(current_setting('wal_segment_size'))").label("segment_bytes"),
    )
)
"""Asks a server for its `Standing`; anyone may."""

# The headers of a page of the log, and of the first page of a segment (xlog_internal.h).
_PAGE_HEADER_BYTES = 24
_SEGMENT_HEADER_BYTES = 40


class NotReadableError(Exception):
    """A server is no replica of our primary that may be read; its text says why."""


class Log(NamedTuple):
    """Positions can be compared within one of these, and never between two."""

    system: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a server says of itself at a moment."""

    is_standby: bool
    log: Log
    position: int
    """The end of what a standby has replayed, or of what a primary has written; in bytes."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Standing":
        """Read the row that `STANDING` returns."""
        return cls(
            is_standby=row["is_standby"],
            log=Log(row["system"], row["timeline"]),
            position=_end(row["position"], row["page_bytes"], row["segment_bytes"]),
        )


def _end(position: int, page_bytes: int, segment_bytes: int) -> int:
    """Return where the last record ends.

    A primary at the end of a page names the place behind the next one's header, which a standby
    reaches no sooner than there is another record.
    """
    is_first_page = position % segment_bytes < page_bytes
    header_bytes = _SEGMENT_HEADER_BYTES if is_first_page else _PAGE_HEADER_BYTES
    return position - header_bytes if position % page_bytes == header_bytes else position


def check_replica(theirs: Standing, ours: Standing) -> None:
    """Make sure that a server is a replica of a primary that was asked after it.

    Raises:
        NotReadableError: It is not, or cannot be known to be.

    """
    if ours.is_standby:
        message = "cannot be compared: PRICEBOOK_DATABASE_URL leads to a standby"
    elif theirs.log.system != ours.log.system:
        message = "belongs to another database cluster"
    elif not theirs.is_standby:
        message = "has been promoted, or is the primary itself"
    elif theirs.log != ours.log:
        message = (
            "is on another timeline than the primary, or has not taken a checkpoint of this one yet"
        )
    elif theirs.position > ours.position:
        message = "holds what the primary does not: their histories have parted"
    else:
        return
    raise NotReadableError(message)
