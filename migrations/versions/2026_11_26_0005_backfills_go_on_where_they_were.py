"""Backfills go on where they were.

Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BACKFILLS = """
CREATE TABLE backfills (
    name        text NOT NULL,
    place       text,
    seen        bigint NOT NULL DEFAULT 0,
    written     bigint NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,

    CONSTRAINT pk_backfills PRIMARY KEY (name)
)
"""


def upgrade() -> None:
    """Make the table of how far each backfill is."""
    op.execute(BACKFILLS)


def downgrade() -> None:
    """Remove it; what has been filled in stays."""
    op.execute("DROP TABLE backfills")
