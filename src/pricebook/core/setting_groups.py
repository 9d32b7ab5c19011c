"""The groups of settings: what belongs together, with units in the names."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pricebook.core.setting_types import (
    AtLeastOne,
    Delays,
    FilesUrl,
    MailAddress,
    MailUrl,
    Network,
    PositiveSeconds,
)


class Group(BaseModel):
    """A frozen set of settings that belong together; an unknown name in it is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(Group):
    """The pools to PostgreSQL, and how long a statement may take."""

    pool_size: AtLeastOne = Field(8, description="Connections for writes, per API process.")
    read_pool_size: AtLeastOne = Field(8, description="Connections for reads, per API process.")
    pool_timeout_seconds: PositiveSeconds = Field(
        1.5, description="How long a request waits for a connection before it gets 503."
    )
    statement_timeout_seconds: PositiveSeconds = Field(
        15, description="The longest a statement of a request may run."
    )
    lock_timeout_seconds: PositiveSeconds = Field(
        5, description="The longest a statement of a request waits for a lock."
    )
    pooler: Literal["none", "transaction"] = Field(
        "none", description="`transaction` where the URLs lead to PgBouncer in transaction mode."
    )
    may_be_newer: bool = Field(
        False,
        description="Start on a schema that a newer version has made: for going back to this one.",
    )

    @property
    def is_pooled(self) -> bool:
        """Whether a connection is one server's for no longer than a transaction."""
        return self.pooler == "transaction"


class HttpSettings(Group):
    """What the API accepts from the network."""

    max_body_bytes: AtLeastOne = Field(
        4 * 1024 * 1024, description="Largest request body; past it 413."
    )
    max_concurrent_requests: AtLeastOne = Field(
        256, description="Requests under way in one process; past it 503 with Retry-After."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks whose X-Forwarded-For and -Proto are believed (JSON list)."
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins that browsers may call from (JSON list)."
    )
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    root_path: str = Field("", description="The path under which a proxy serves the API.")
    require_if_match: bool = Field(
        False, description="Demand If-Match on item changes; without it 428."
    )


class AuthSettings(Group):
    """Sessions, passwords and the brakes on guessing."""

    session_hours: PositiveSeconds = Field(12, description="How long a log-in lasts.")
    principal_cache_seconds: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.5,
        description="How long a process may believe a credential it has checked; "
        "every revocation is in force within this time.",
    )
    hash_threads: AtLeastOne = Field(1, description="Threads that hash passwords, per process.")
    hash_queue_limit: AtLeastOne = Field(
        100, description="Log-ins waiting to be hashed; past it 503 with Retry-After."
    )
    failure_window_seconds: AtLeastOne = Field(
        900, description="The window in which failed log-ins and requests for mails are counted."
    )
    failures_per_account_and_network: AtLeastOne = Field(
        10, description="Failed log-ins to one account from one network before 429."
    )
    failures_per_account: AtLeastOne = Field(
        50,
        description="Failed log-ins to one account from anywhere before 429 "
        "for networks it has never logged in from.",
    )
    failures_per_network: AtLeastOne = Field(
        100, description="Failed log-ins from one network before 429."
    )
    mails_per_address: AtLeastOne = Field(
        5,
        description="Mails that one address is sent in a window to reset its password, "
        "and to verify it.",
    )
    mail_requests_per_network: AtLeastOne = Field(
        20, description="Requests to reset passwords from one network before 429."
    )


class LimitSettings(Group):
    """The rate that one caller may reach, shared by all API processes."""

    window_seconds: AtLeastOne = Field(60, description="The window that requests are counted in.")
    requests: AtLeastOne = Field(
        60_000, description="Requests of one credential in a window; past it 429."
    )
    anonymous_requests: AtLeastOne = Field(
        6_000, description="Requests of one address without credentials in a window."
    )


class IdempotencySettings(Group):
    """How long the answer to an Idempotency-Key is kept."""

    keep_hours: AtLeastOne = Field(24, description="Hours a stored answer is kept.")


class DeliverySettings(Group):
    """How the worker carries events to their receivers."""

    lease_seconds: PositiveSeconds = Field(
        6,
        description="How long a worker that died holds what it was delivering; "
        "one that lives renews it three times as often.",
    )
    expansion_batch: AtLeastOne = Field(
        500, description="Events turned into deliveries in one transaction."
    )


class WebhookSettings(Group):
    """Signed POSTs to systems (Standard Webhooks 1.0)."""

    timeout_seconds: PositiveSeconds = Field(
        15, description="How long a receiver may take to answer."
    )
    retry_delays_seconds: Delays = Field(
        (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000),
        description="The waits after failed attempts, each up to a fifth longer or shorter; "
        "after the last the delivery is dead (JSON list).",
    )
    allowed_networks: tuple[Network, ...] = Field(
        (),
        description="Your own networks that webhooks may reach; "
        "all that are not public are closed otherwise (JSON list of CIDRs).",
    )
    concurrency: AtLeastOne = Field(
        10, description="Requests at once to one endpoint, per worker process."
    )
    capacity: AtLeastOne = Field(
        1_000, description="Deliveries that one worker process holds at once."
    )
    disable_after_days: PositiveSeconds = Field(
        5, description="An endpoint that fails for this long is disabled, and its owner told."
    )
    old_secret_hours: PositiveSeconds = Field(
        24, description="How long a rotated secret still signs, beside its successor."
    )


class MailSettings(Group):
    """E-mail: what people watch, and what they must know."""

    url: MailUrl | None = Field(
        None,
        description="smtp://user:password@host:587, smtps://host:465, or file:///a/folder; "
        "without it mail waits, and `pricebook up` writes it to its data folder.",
    )
    starttls: Literal["auto", "always", "never"] = Field(
        "auto", description="Whether smtp:// turns to TLS: if offered, or fail without, or never."
    )
    sender: MailAddress = Field(
        "Pricebook <pricebook@localhost>", description="The From address of every mail."
    )
    timeout_seconds: PositiveSeconds = Field(
        15, description="How long the mail server may take for one mail."
    )
    retry_delays_seconds: Delays = Field(
        (10, 60, 300, 1_800, 7_200, 18_000, 36_000),
        description="The waits after passing failures, as for webhooks (JSON list).",
    )
    concurrency: AtLeastOne = Field(
        4, description="Connections to the mail server, per worker process."
    )
    at_once_per_hour: AtLeastOne = Field(
        60,
        description="Mails about watched prices that one person gets at once in an hour; "
        "past it changes are gathered for ten minutes.",
    )


class StreamSettings(Group):
    """Live events over server-sent events."""

    max_age_seconds: PositiveSeconds = Field(
        600, description="A stream ends after this, and its client goes on where it was."
    )
    max_readers: AtLeastOne = Field(
        2_000, description="Streams open in one process; past it 503 with Retry-After."
    )
    buffer_events: AtLeastOne = Field(
        1_000, description="Events that may wait for a slow reader before it is dropped."
    )
    poll_seconds: PositiveSeconds = Field(
        0.01, description="How often a process with readers looks for new events."
    )


class JobSettings(Group):
    """Long work that people wait for: imports and export files."""

    concurrency: Annotated[int, Field(ge=0)] = Field(
        2,
        description="Jobs that one worker process runs at once, the last place kept for short "
        "ones; 0 leaves all to other workers.",
    )
    lease_seconds: PositiveSeconds = Field(
        6, description="How long a worker that died holds its jobs; one that lives renews sooner."
    )
    max_attempts: AtLeastOne = Field(
        5, description="Starts of a job, after deaths of workers and outages, before it has failed."
    )


class ExportSettings(Group):
    """Streams of the whole list."""

    at_once: AtLeastOne = Field(
        8, description="Streamed exports at once in one API process; past it 503 with Retry-After."
    )
    stall_seconds: PositiveSeconds = Field(
        20, description="A reader that takes nothing for so long is cut off."
    )
    max_minutes: PositiveSeconds = Field(
        60, description="The longest that one export may hold its snapshot of the database."
    )


class ImportSettings(Group):
    """What an import may send."""

    max_bytes: AtLeastOne = Field(
        1024 * 1024 * 1024, description="Largest upload, as sent; past it 413."
    )
    max_unpacked_bytes: AtLeastOne = Field(
        8 * 1024 * 1024 * 1024, description="Largest upload once decompressed."
    )
    uploads_at_once: AtLeastOne = Field(
        8, description="Uploads at once in one API process; past it 503 with Retry-After."
    )
    stall_seconds: PositiveSeconds = Field(
        15, description="An upload that sends nothing for so long is cut off."
    )


class FileSettings(Group):
    """Where uploads and export files lie. Every API and worker process must reach it."""

    url: FilesUrl | None = Field(
        None,
        description="file:///a/folder, s3://bucket/prefix, gs://… or az://…; "
        "without it a folder `files` in the data folder.",
    )
    options: dict[str, SecretStr] = Field(
        {},
        description="What the object store needs besides the usual variables of its cloud, "
        'such as {"aws_endpoint": "https://…"} (JSON object).',
    )


class RetentionSettings(Group):
    """How long the past is kept. What is not delivered yet stays, however old."""

    events_days: AtLeastOne = Field(90, description="Days that events are kept.")
    deliveries_days: AtLeastOne = Field(
        30, description="Days that delivered webhooks, their attempts, and sent mails are kept."
    )
    notifications_days: AtLeastOne = Field(90, description="Days that inbox entries are kept.")
    jobs_days: AtLeastOne = Field(
        7, description="Days that ended jobs are kept, with their files and links."
    )
