"""Every setting of the service, in small frozen groups, read from `PRICEBOOK_…` variables."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pricebook.core.operating_groups import (
    BackupSettings,
    LogSettings,
    MetricsSettings,
    ReplicaSettings,
    TracingSettings,
)
from pricebook.core.secret_files import SecretFiles
from pricebook.core.setting_groups import (
    AuthSettings,
    DatabaseSettings,
    DeliverySettings,
    ExportSettings,
    FileSettings,
    Group,
    HttpSettings,
    IdempotencySettings,
    ImportSettings,
    JobSettings,
    LimitSettings,
    MailSettings,
    RetentionSettings,
    StreamSettings,
    WebhookSettings,
)
from pricebook.core.setting_types import (
    AtLeastOne,
    DatabaseUrl,
    PositiveSeconds,
    RedisUrl,
    SecretKeys,
)

__all__ = [
    "AuthSettings",
    "BackupSettings",
    "DatabaseSettings",
    "DeliverySettings",
    "ExportSettings",
    "FileSettings",
    "Group",
    "HttpSettings",
    "IdempotencySettings",
    "ImportSettings",
    "JobSettings",
    "LimitSettings",
    "LogSettings",
    "MailSettings",
    "ReplicaSettings",
    "RetentionSettings",
    "Settings",
    "StreamSettings",
    "TracingSettings",
    "WebhookSettings",
    "load_settings",
]

_MOST_FLUSH_SECONDS = 1.0


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
        None,
        description="PostgreSQL to use; without it `pricebook up` starts its own. Several hosts "
        "with commas: whichever is the primary.",
    )
    database_direct_url: DatabaseUrl | None = Field(
        None, description="The same database past a pooler, for migrations and backups."
    )
    database_replica_url: DatabaseUrl | None = Field(
        None,
        description="Replicas of that PostgreSQL, to be read by those who do not write; several "
        "hosts with commas.",
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="Valkey or Redis to use, or redis+sentinel://host1:26379,host2:26379/service/0 "
        "for whichever is the primary; without it `pricebook up` starts its own.",
    )
    secrets_dir: Path | None = Field(
        None,
        description="A folder of files that are named as these variables and hold their values; "
        "what the environment says goes first.",
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
    secret_key: SecretKeys | None = Field(
        None,
        description="Encrypts webhook secrets in the database: 32 characters or more, such as "
        "`openssl rand -base64 32` makes. Several, with commas: the first encrypts, all decrypt.",
    )
    public_url: str = Field(
        "http://127.0.0.1:8000", description="Where people reach the service: for links in mails."
    )
    stop_seconds: PositiveSeconds = Field(
        8, description="How long a process may take to finish its work when told to stop."
    )
    drain_seconds: Annotated[float, Field(ge=0)] = Field(
        3,
        description="For how much of that, at most half, an API process still takes requests while "
        "/health/ready answers 503, so that load balancers take it out first.",
    )

    database: DatabaseSettings = DatabaseSettings()
    replica: ReplicaSettings = ReplicaSettings()
    http: HttpSettings = HttpSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    delivery: DeliverySettings = DeliverySettings()
    webhooks: WebhookSettings = WebhookSettings()
    mail: MailSettings = MailSettings()
    stream: StreamSettings = StreamSettings()
    jobs: JobSettings = JobSettings()
    exports: ExportSettings = ExportSettings()
    imports: ImportSettings = ImportSettings()
    files: FileSettings = FileSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    backup: BackupSettings = BackupSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- ours know groups
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what was given, then the environment, then files."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @model_validator(mode="after")
    def _servers_come_together(self) -> Self:
        if (self.database_url is None) != (self.redis_url is None):
            message = "set both PRICEBOOK_DATABASE_URL and PRICEBOOK_REDIS_URL, or neither"
            raise ValueError(message)
        if self.database_replica_url is not None and self.database_url is None:
            message = "PRICEBOOK_DATABASE_REPLICA_URL needs PRICEBOOK_DATABASE_URL"
            raise ValueError(message)
        return self

    @property
    def flush_seconds(self) -> float:
        """How long a process that stops may wait for the collector of its traces."""
        return min(_MOST_FLUSH_SECONDS, self.stop_seconds / 8)

    @property
    def is_embedded(self) -> bool:
        """Whether `pricebook up` starts PostgreSQL and Valkey itself."""
        return self.database_url is None


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings from the environment, once a process."""
    return Settings()
