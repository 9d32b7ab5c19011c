"""Whoever subscribed hears of it: webhooks, watches, the inbox, mail.

Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The new constraint on api_keys, a small table, admits whatever the old one did:
# squawk-ignore-file ban-drop-constraint
# squawk-ignore-file constraint-missing-not-valid

PEOPLE = """
ALTER TABLE users ADD COLUMN email_verified_at timestamptz;
ALTER TABLE api_keys DROP CONSTRAINT ck_api_keys_scopes;
ALTER TABLE api_keys ADD CONSTRAINT ck_api_keys_scopes CHECK (
    cardinality(scopes) > 0
    AND scopes <@ ARRAY['items:read', 'items:write', 'users:read', 'users:write',
                        'webhooks:read', 'webhooks:write']
) NOT VALID;
ALTER TABLE api_keys VALIDATE CONSTRAINT ck_api_keys_scopes;

CREATE TABLE one_time_tokens (
    token_digest      bytea NOT NULL,
    user_id           uuid NOT NULL,
    purpose           text NOT NULL,
    credentials_epoch bigint NOT NULL,
    email             text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL,

    CONSTRAINT pk_one_time_tokens PRIMARY KEY (token_digest),
    CONSTRAINT fk_one_time_tokens_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT ck_one_time_tokens_purpose CHECK (purpose IN ('password_reset', 'verify_email'))
);
CREATE INDEX ix_one_time_tokens_user_id ON one_time_tokens (user_id);
CREATE INDEX ix_one_time_tokens_expires_at ON one_time_tokens (expires_at);
"""

WEBHOOKS = """
CREATE TABLE webhook_endpoints (
    id                uuid NOT NULL DEFAULT uuidv7(),
    owner_id          uuid,
    url               text NOT NULL,
    description       text,
    events            text[],
    tags              text[],
    sealed_secret     bytea NOT NULL,
    old_sealed_secret bytea,
    old_secret_until  timestamptz,
    paused_at         timestamptz,
    disabled_at       timestamptz,
    disabled_reason   text,
    failing_since     timestamptz,
    alerted_at        timestamptz,
    version           bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id),
    CONSTRAINT fk_webhook_endpoints_owner_id_users
        FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT ck_webhook_endpoints_url_length CHECK (char_length(url) BETWEEN 1 AND 2000),
    CONSTRAINT ck_webhook_endpoints_events_named CHECK (cardinality(events) > 0),
    CONSTRAINT ck_webhook_endpoints_tags_named CHECK (cardinality(tags) > 0),
    CONSTRAINT ck_webhook_endpoints_disabled_with_reason
        CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CONSTRAINT ck_webhook_endpoints_disabled_reason
        CHECK (disabled_reason IN ('gone', 'failing'))
);
CREATE INDEX ix_webhook_endpoints_owner_id ON webhook_endpoints (owner_id);

CREATE TABLE webhook_messages (
    id         uuid NOT NULL,
    type       text NOT NULL,
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_webhook_messages PRIMARY KEY (id)
);
CREATE INDEX ix_webhook_messages_created_at ON webhook_messages (created_at);

CREATE TABLE webhook_deliveries (
    id           uuid NOT NULL DEFAULT uuidv7(),
    endpoint_id  uuid NOT NULL,
    message_id   uuid NOT NULL,
    status       text NOT NULL DEFAULT 'pending',
    attempts     bigint NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    lease        bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    settled_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT uq_webhook_deliveries_endpoint_id_message_id UNIQUE (endpoint_id, message_id),
    CONSTRAINT fk_webhook_deliveries_endpoint_id_webhook_endpoints
        FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    CONSTRAINT fk_webhook_deliveries_message_id_webhook_messages
        FOREIGN KEY (message_id) REFERENCES webhook_messages (id),
    CONSTRAINT ck_webhook_deliveries_status CHECK (status IN ('pending', 'delivered', 'dead'))
);
CREATE INDEX ix_webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at, id)
    WHERE status = 'pending';
CREATE INDEX ix_webhook_deliveries_endpoint_id ON webhook_deliveries (endpoint_id, id);
CREATE INDEX ix_webhook_deliveries_message_id ON webhook_deliveries (message_id);
CREATE INDEX ix_webhook_deliveries_delivered ON webhook_deliveries (settled_at)
    WHERE status = 'delivered';

CREATE TABLE webhook_attempts (
    id            uuid NOT NULL DEFAULT uuidv7(),
    delivery_id   uuid NOT NULL,
    started_at    timestamptz NOT NULL,
    duration_ms   bigint NOT NULL,
    status_code   bigint,
    error         text,
    response_head text,

    CONSTRAINT pk_webhook_attempts PRIMARY KEY (id),
    CONSTRAINT fk_webhook_attempts_delivery_id_webhook_deliveries
        FOREIGN KEY (delivery_id) REFERENCES webhook_deliveries (id) ON DELETE CASCADE
);
CREATE INDEX ix_webhook_attempts_delivery_id ON webhook_attempts (delivery_id, id);
"""

NOTIFICATIONS = """
CREATE TABLE item_watches (
    user_id    uuid NOT NULL,
    item_id    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_item_watches PRIMARY KEY (user_id, item_id),
    CONSTRAINT fk_item_watches_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT fk_item_watches_item_id_items
        FOREIGN KEY (item_id) REFERENCES items (id) ON DELETE CASCADE
);
CREATE INDEX ix_item_watches_item_id ON item_watches (item_id);

CREATE TABLE tag_watches (
    user_id    uuid NOT NULL,
    tag        text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_tag_watches PRIMARY KEY (user_id, tag),
    CONSTRAINT fk_tag_watches_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX ix_tag_watches_tag ON tag_watches (tag);

CREATE TABLE notification_settings (
    user_id uuid NOT NULL,
    digest  text NOT NULL DEFAULT 'at_once',
    muted   text[] NOT NULL DEFAULT '{}',

    CONSTRAINT pk_notification_settings PRIMARY KEY (user_id),
    CONSTRAINT fk_notification_settings_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT ck_notification_settings_digest
        CHECK (digest IN ('at_once', 'hourly', 'daily', 'never'))
);

CREATE TABLE mails (
    id           uuid NOT NULL DEFAULT uuidv7(),
    user_id      uuid NOT NULL,
    kind         text NOT NULL,
    event_id     uuid,
    data         jsonb NOT NULL DEFAULT '{}',
    is_gathering boolean NOT NULL DEFAULT false,
    last_error   text,
    status       text NOT NULL DEFAULT 'pending',
    attempts     bigint NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    lease        bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    settled_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_mails PRIMARY KEY (id),
    CONSTRAINT fk_mails_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT ck_mails_status CHECK (status IN ('pending', 'delivered', 'dead'))
);
CREATE UNIQUE INDEX uq_mails_gathering ON mails (user_id) WHERE is_gathering;
CREATE INDEX ix_mails_due ON mails (due_at, id) WHERE status = 'pending';
CREATE INDEX ix_mails_user_id ON mails (user_id, created_at);
CREATE INDEX ix_mails_settled_at ON mails (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE notifications (
    id          uuid NOT NULL DEFAULT uuidv7(),
    user_id     uuid NOT NULL,
    kind        text NOT NULL,
    event_id    uuid NOT NULL,
    data        jsonb NOT NULL,
    is_in_inbox boolean NOT NULL,
    mail_id     uuid,
    read_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT pk_notifications PRIMARY KEY (id),
    CONSTRAINT uq_notifications_user_id_event_id UNIQUE (user_id, event_id),
    CONSTRAINT fk_notifications_user_id_users
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT fk_notifications_mail_id_mails
        FOREIGN KEY (mail_id) REFERENCES mails (id) ON DELETE SET NULL
);
CREATE INDEX ix_notifications_inbox ON notifications (user_id, id) WHERE is_in_inbox;
CREATE INDEX ix_notifications_unread ON notifications (user_id)
    WHERE is_in_inbox AND read_at IS NULL;
CREATE INDEX ix_notifications_mail_id ON notifications (mail_id);
CREATE INDEX ix_notifications_created_at ON notifications (created_at);
"""

NEWEST_FIRST = (
    "notifications",
    "mails",
    "notification_settings",
    "tag_watches",
    "item_watches",
    "webhook_attempts",
    "webhook_deliveries",
    "webhook_messages",
    "webhook_endpoints",
    "one_time_tokens",
)

PEOPLE_BEFORE = """
ALTER TABLE users DROP COLUMN email_verified_at;
UPDATE api_keys SET scopes = array_remove(array_remove(scopes, 'webhooks:read'), 'webhooks:write')
    WHERE scopes && ARRAY['webhooks:read', 'webhooks:write']
    AND NOT scopes <@ ARRAY['webhooks:read', 'webhooks:write'];
DELETE FROM api_keys WHERE scopes && ARRAY['webhooks:read', 'webhooks:write'];
ALTER TABLE api_keys DROP CONSTRAINT ck_api_keys_scopes;
ALTER TABLE api_keys ADD CONSTRAINT ck_api_keys_scopes CHECK (
    cardinality(scopes) > 0
    AND scopes <@ ARRAY['items:read', 'items:write', 'users:read', 'users:write']
);
"""


def upgrade() -> None:
    """Make the tables; what stands already grows by one column, and by two scopes."""
    for ddl in (PEOPLE, WEBHOOKS, NOTIFICATIONS):
        _run(ddl)


def downgrade() -> None:
    """Drop them; API keys lose the scopes that are gone, and go themselves if none is left."""
    for table in NEWEST_FIRST:
        op.execute(f"DROP TABLE {table}")
    _run(PEOPLE_BEFORE)


def _run(ddl: str) -> None:
    for statement in filter(str.strip, ddl.split(";\n")):
        op.execute(statement)
