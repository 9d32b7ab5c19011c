"""For revisions: indexes that are built while the service runs."""

from alembic import op


def create_index_online(name: str, on: str, *, is_unique: bool = False) -> None:
    """Build an index without holding up writers; `on` is `table (columns)`, and what follows.

    It runs outside the revision's transaction, so nothing else belongs into such a revision. A
    build that broke off leaves an index that is not valid: it is dropped first, and so the
    revision may be run again. It waits for every transaction that is older, however long that
    takes, and nobody waits for it (PostgreSQL's manual, "Building Indexes Concurrently").
    """
    kind = "UNIQUE INDEX" if is_unique else "INDEX"
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute("SET statement_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {kind} CONCURRENTLY {name} ON {on}")


def drop_index_online(name: str) -> None:
    """Drop an index without holding up anyone; like building one, outside the transaction."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
