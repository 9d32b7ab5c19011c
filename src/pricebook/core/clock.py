"""The one place that asks for the time. What must agree across machines asks PostgreSQL instead."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)
