"""For revisions: what must have been filled in before a step is taken."""

from alembic import op

UNFINISHED = "PB001"
"""The SQLSTATE, of our own, by which a step says that a backfill has not finished."""

_DEMAND = """
DO $demand$ BEGIN
    IF EXISTS (SELECT FROM {table}) AND NOT EXISTS (
        SELECT FROM backfills WHERE name = '{name}' AND finished_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE =
            'the next step needs the backfill {name}, which has not finished: '
            'run `pricebook backfill {name} --wait`, and then this again';
    END IF;
END $demand$
"""


def require_backfill(name: str, table: str) -> None:
    """Go on only if a backfill of `table` has finished; an empty table needs none.

    It is part of the revision's SQL, and so holds when that is run by hand, too.
    """
    op.execute(_DEMAND.format(name=name, table=table, state=UNFINISHED))
