"""What led to it: events and jobs carry the trace, and jobs the request, that they come of.

Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns that may be null, which reads and writes no row."""
    # The large table last: it is locked for no longer than this takes.
    op.execute("ALTER TABLE jobs ADD COLUMN request_id text, ADD COLUMN traceparent text")
    op.execute("ALTER TABLE events ADD COLUMN traceparent text")


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE jobs DROP COLUMN traceparent, DROP COLUMN request_id")
    op.execute("ALTER TABLE events DROP COLUMN traceparent")
