"""For revisions: indexes that are built while the service runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op

# They belong to the session, and the revision that follows in it is to have its limits.
_KEEP_LIMITS = """
SELECT set_config('pricebook.' || name, setting, false)
FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout')
"""
_RESTORE_LIMITS = """
SELECT set_config(name, current_setting('pricebook.' || name), false)
FROM unnest(ARRAY['lock_timeout', 'statement_timeout']) AS name
"""


def create_index_online(name: str, on: str, *, is_unique: bool = False) -> None:
    """Build an index without holding up writers; `on` is `table (columns)`, and what follows.

    It runs outside the revision's transaction, so nothing else belongs into such a revision. A
    build that broke off leaves an index that is not valid: it is dropped first, and so the
    revision may be run again. It waits for every transaction that is older, however long that
    takes, and nobody waits for it (PostgreSQL's manual, "Building Indexes Concurrently").
    """
    kind = "UNIQUE INDEX" if is_unique else "INDEX"
    with _unhurried():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {kind} CONCURRENTLY {name} ON {on}")


def drop_index_online(name: str) -> None:
    """Drop an index without holding up anyone; like building one, outside the transaction."""
    with _unhurried():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


@contextmanager
def _unhurried() -> Iterator[None]:
    with op.get_context().autocommit_block():
        op.execute(_KEEP_LIMITS)
        op.execute("SET lock_timeout = 0")
        op.execute("SET statement_timeout = 0")
        yield
        op.execute(_RESTORE_LIMITS)
