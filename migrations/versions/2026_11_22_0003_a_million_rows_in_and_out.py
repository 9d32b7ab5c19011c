"""A million rows in and out: jobs.

Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JOBS = """
CREATE TABLE jobs (
    id                  uuid NOT NULL DEFAULT uuidv7(),
    kind                text NOT NULL,
    owner_id            uuid,
    params              jsonb NOT NULL,
    role                text NOT NULL,
    scope               text NOT NULL,
    files               text[] NOT NULL DEFAULT '{}',
    inputs              text[] NOT NULL DEFAULT '{}',
    rank_at             timestamptz NOT NULL,
    expected_seconds    double precision NOT NULL,
    is_told             boolean NOT NULL,
    status              text NOT NULL DEFAULT 'queued',
    attempts            bigint NOT NULL DEFAULT 0,
    due_at              timestamptz NOT NULL DEFAULT now(),
    lease               bigint NOT NULL DEFAULT 0,
    leased_until        timestamptz,
    phase               text,
    done                bigint NOT NULL DEFAULT 0,
    total               bigint,
    rate                double precision,
    result              jsonb,
    error               text,
    cancel_requested_at timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,

    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT fk_jobs_owner_id_users
        FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT ck_jobs_status
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT ck_jobs_finished
        CHECK ((finished_at IS NULL) = (status IN ('queued', 'running')))
);
CREATE INDEX ix_jobs_unfinished ON jobs (rank_at, id) WHERE status IN ('queued', 'running');
CREATE INDEX ix_jobs_owner_id ON jobs (owner_id, id);
CREATE INDEX ix_jobs_finished_at ON jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE job_log_lines (
    job_id     uuid NOT NULL,
    lease      bigint NOT NULL,
    number     bigint NOT NULL,
    text       text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT pk_job_log_lines PRIMARY KEY (job_id, lease, number),
    CONSTRAINT fk_job_log_lines_job_id_jobs
        FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
"""


def upgrade() -> None:
    """Make the tables of jobs."""
    for statement in filter(str.strip, JOBS.split(";\n")):
        op.execute(statement)


def downgrade() -> None:
    """Remove them; the files of jobs stay where they lie."""
    op.execute("DROP TABLE job_log_lines")
    op.execute("DROP TABLE jobs")
