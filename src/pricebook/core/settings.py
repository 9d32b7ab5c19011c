"""Every setting of the service, in small frozen groups, read from `PRICEBOOK_…` variables."""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_DRIVERLESS = re.compile(r"^postgres(ql)?(\+\w+)?://")


def _asyncpg_url(url: SecretStr) -> SecretStr:
    """Take any usual spelling of a PostgreSQL URL and name the driver that the service uses."""
    value = url.get_secret_value()
    if not _DRIVERLESS.match(value):
        message = "must begin with postgresql://"
        raise ValueError(message)
    return SecretStr(_DRIVERLESS.sub("postgresql+asyncpg://", value))


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        message = "must begin with redis://, rediss:// or unix://"
        raise ValueError(message)
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_asyncpg_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Network = IPv4Network | IPv6Network
PositiveSeconds = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


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
        900, description="The window in which failed log-ins are counted."
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


class LogSettings(Group):
    """What the service writes about itself."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least severe line that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="JSON lines, or text for people; auto asks the terminal."
    )
    access: bool = Field(True, description="One line for each request.")


class Settings(BaseSettings):
    """Everything that can be set. Names are `PRICEBOOK_` and, in a group, `GROUP__NAME`."""

    model_config = SettingsConfigDict(
        env_prefix="PRICEBOOK_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL to use; without it `pricebook up` starts its own."
    )
    redis_url: RedisUrl | None = Field(
        None, description="Valkey or Redis to use; without it `pricebook up` starts its own."
    )
    data_dir: Path = Field(Path("data"), description="Where `pricebook up` keeps everything.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        8000, description="Port the API listens on."
    )
    processes: AtLeastOne = Field(1, description="API processes that share the port.")
    admin_email: str = Field(
        "admin@example.com", description="The admin that `pricebook up` makes on its first run."
    )
    admin_password: SecretStr | None = Field(
        None, description="That admin's password; without it one is made and printed once."
    )
    stop_seconds: PositiveSeconds = Field(
        8, description="How long a process may take to finish its work when told to stop."
    )

    database: DatabaseSettings = DatabaseSettings()
    http: HttpSettings = HttpSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _servers_come_together(self) -> Self:
        if (self.database_url is None) != (self.redis_url is None):
            message = "set both PRICEBOOK_DATABASE_URL and PRICEBOOK_REDIS_URL, or neither"
            raise ValueError(message)
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether `pricebook up` starts PostgreSQL and Valkey itself."""
        return self.database_url is None


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings from the environment, once a process."""
    return Settings()
