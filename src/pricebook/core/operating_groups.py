"""The groups of settings for those who run the service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from pricebook.core.setting_groups import Group
from pricebook.core.setting_types import AtLeastOne, CollectorUrl, FilesUrl, PositiveSeconds


class BackupSettings(Group):
    """Where `pricebook backup` keeps what it makes, and for how long."""

    url: FilesUrl | None = Field(
        None,
        description="file:///a/folder, s3://bucket/prefix, gs://… or az://…, away from the "
        "database's own disk; without it none can be made.",
    )
    options: dict[str, SecretStr] = Field(
        {},
        description="What the object store needs besides the usual variables of its cloud, "
        'such as {"aws_endpoint": "https://…"} (JSON object).',
    )
    keep: AtLeastOne = Field(7, description="The newest so many are kept, however old.")
    keep_days: AtLeastOne = Field(30, description="Others are deleted after so many days.")
    warn_after_hours: Annotated[float, Field(gt=0)] = Field(
        26, description="`pricebook doctor` complains when the newest is older."
    )
    programs: Path | None = Field(
        None,
        description="Folder of pg_dump and pg_restore, of the server's version or later; without "
        "it those in PATH, or of the wheel.",
    )


class LogSettings(Group):
    """What the service writes about itself."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least severe line that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="JSON lines, or text for people; auto asks the terminal."
    )
    access: bool = Field(True, description="One line for each request.")


class MetricsSettings(Group):
    """What Prometheus may read at /metrics."""

    token: SecretStr | None = Field(
        None, description="Whoever asks must send it, as a bearer token; without it, anyone may."
    )
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="Port at which a worker serves /metrics and /health/live; 0: none."
    )
    worker_host: str = Field("127.0.0.1", description="Address of that port.")


class ReplicaSettings(Group):
    """Reads that go to a replica (PRICEBOOK_DATABASE_REPLICA_URL)."""

    max_lag_seconds: PositiveSeconds = Field(
        10, description="A replica that is further behind is not read until it has caught up."
    )


class TracingSettings(Group):
    """Traces for a collector of OpenTelemetry; the usual OTEL_ variables count, too."""

    url: CollectorUrl | None = Field(
        None,
        description="An OTLP/HTTP collector, such as http://127.0.0.1:4318; without it no traces.",
    )
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        1,
        description="The share of requests that is traced; one that comes with a traceparent "
        "is traced if that says so.",
    )
