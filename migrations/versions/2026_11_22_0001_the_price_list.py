"""The price list: items, people and their credentials, events.

Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ITEMS = """
CREATE TABLE items (
    id          uuid NOT NULL DEFAULT uuidv7(),
    -- pg_c_utf8: ordered by code point and lowered by Unicode's rules, alike on every server.
    sku         text COLLATE pg_c_utf8 NOT NULL,
    name        text COLLATE pg_c_utf8 NOT NULL,
    description text COLLATE pg_c_utf8,
    price       numeric(14, 4) NOT NULL,
    currency    text NOT NULL,
    tax_rate    numeric(6, 3) NOT NULL DEFAULT 10.5,
    tags        text[] NOT NULL DEFAULT '{}',
    cost        numeric(14, 4),
    notes       text,
    version     bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT statement_timestamp(),
    search_text text COLLATE pg_c_utf8 NOT NULL GENERATED ALWAYS AS
                (lower(sku || ' ' || name || ' ' || coalesce(description, ''))) STORED,

    CONSTRAINT pk_items PRIMARY KEY (id),
    CONSTRAINT uq_items_sku UNIQUE (sku),
    CONSTRAINT ck_items_sku_length CHECK (char_length(sku) BETWEEN 1 AND 64),
    CONSTRAINT ck_items_sku_form CHECK (sku = btrim(sku) AND sku !~ '[[:cntrl:]]'),
    CONSTRAINT ck_items_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_items_description_length CHECK (char_length(description) <= 10000),
    -- NaN is a numeric, and greater than any other: only a bound above keeps it out.
    CONSTRAINT ck_items_price_amount CHECK (price >= 0 AND price < 'NaN'),
    CONSTRAINT ck_items_cost_amount CHECK (cost >= 0 AND cost < 'NaN'),
    CONSTRAINT ck_items_tax_rate_range CHECK (tax_rate BETWEEN 0 AND 100),
    CONSTRAINT ck_items_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ck_items_tags_form
        CHECK (cardinality(tags) <= 50 AND array_position(tags, NULL) IS NULL),
    CONSTRAINT ck_items_notes_length CHECK (char_length(notes) <= 10000),
    CONSTRAINT ck_items_version_positive CHECK (version > 0)
);
CREATE INDEX ix_items_price ON items (price, id);
CREATE INDEX ix_items_name ON items (name, id);
CREATE INDEX ix_items_created_at ON items (created_at, id);
CREATE INDEX ix_items_updated_at ON items (updated_at, id);
CREATE INDEX ix_items_tags ON items USING gin (tags);
CREATE INDEX ix_items_search_text ON items USING gin (search_text gin_trgm_ops);
"""

USERS = """
CREATE TABLE users (
    id                uuid NOT NULL DEFAULT uuidv7(),
    email             text NOT NULL,
    name              text NOT NULL,
    role              text NOT NULL,
    hashed_password   text NOT NULL,
    credentials_epoch bigint NOT NULL DEFAULT 1,
    kept_session_id   uuid,
    disabled_at       timestamptz,
    version           bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT ck_users_email CHECK (length(email) BETWEEN 3 AND 254),
    CONSTRAINT ck_users_name CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_users_role CHECK (role IN ('viewer', 'editor', 'admin'))
);
CREATE UNIQUE INDEX uq_users_email ON users (lower(email));
CREATE INDEX ix_users_created_at ON users (created_at, id);
CREATE INDEX ix_users_name ON users (name, id);
"""

CREDENTIALS = """
CREATE TABLE sessions (
    id                uuid NOT NULL DEFAULT uuidv7(),
    user_id           uuid NOT NULL,
    token_digest      bytea NOT NULL,
    credentials_epoch bigint NOT NULL,
    address           text NOT NULL,
    user_agent        text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    last_used_at      timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL,

    CONSTRAINT pk_sessions PRIMARY KEY (id),
    CONSTRAINT fk_sessions_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX uq_sessions_token_digest ON sessions (token_digest);
CREATE INDEX ix_sessions_user_id ON sessions (user_id, id);
CREATE INDEX ix_sessions_expires_at ON sessions (expires_at);

CREATE TABLE api_keys (
    id           uuid NOT NULL DEFAULT uuidv7(),
    user_id      uuid NOT NULL,
    token_digest bytea NOT NULL,
    name         text NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at   timestamptz,

    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT ck_api_keys_name CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_api_keys_scopes CHECK (
        cardinality(scopes) > 0
        AND scopes <@ ARRAY['items:read', 'items:write', 'users:read', 'users:write']
    )
);
CREATE UNIQUE INDEX uq_api_keys_token_digest ON api_keys (token_digest);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id, id);
CREATE INDEX ix_api_keys_expires_at ON api_keys (expires_at);

CREATE TABLE known_networks (
    user_id       uuid NOT NULL,
    network       text NOT NULL,
    last_login_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_known_networks PRIMARY KEY (user_id, network),
    CONSTRAINT fk_known_networks_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE failed_attempts (
    key        bytea NOT NULL,
    failures   bigint NOT NULL,
    expires_at timestamptz NOT NULL,

    CONSTRAINT pk_failed_attempts PRIMARY KEY (key),
    CONSTRAINT ck_failed_attempts_failures CHECK (failures > 0)
);
CREATE INDEX ix_failed_attempts_expires_at ON failed_attempts (expires_at);

CREATE TABLE idempotency_keys (
    credential_id  uuid NOT NULL,
    key_digest     bytea NOT NULL,
    request_digest bytea NOT NULL,
    status         bigint NOT NULL,
    headers        jsonb NOT NULL,
    sealed_body    bytea NOT NULL,
    expires_at     timestamptz NOT NULL,

    CONSTRAINT pk_idempotency_keys PRIMARY KEY (credential_id, key_digest)
);
CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at);
"""

EVENTS = """
CREATE TABLE events (
    id             uuid NOT NULL DEFAULT uuidv7(),
    type           text NOT NULL,
    subject_id     uuid NOT NULL,
    payload        jsonb NOT NULL,
    actor_id       uuid,
    request_id     text,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    occurred_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expanded_at    timestamptz,

    CONSTRAINT pk_events PRIMARY KEY (id)
);
CREATE INDEX ix_events_transaction_id ON events (transaction_id, id);
CREATE INDEX ix_events_subject_id ON events (subject_id, id);
CREATE INDEX ix_events_unexpanded ON events (transaction_id, id) WHERE expanded_at IS NULL;
"""

NEWEST_FIRST = (
    "events",
    "idempotency_keys",
    "failed_attempts",
    "known_networks",
    "api_keys",
    "sessions",
    "users",
    "items",
)


def upgrade() -> None:
    """Make the tables. pg_trgm is a trusted extension: the owner of the database may add it."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    for ddl in (ITEMS, USERS, CREDENTIALS, EVENTS):
        for statement in filter(str.strip, ddl.split(";\n")):
            op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in NEWEST_FIRST:
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP EXTENSION pg_trgm")
