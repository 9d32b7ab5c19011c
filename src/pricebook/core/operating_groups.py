"""The groups of settings for those who run the service."""

from typing import Annotated

from pydantic import Field, SecretStr

from pricebook.core.setting_groups import Group
from pricebook.core.setting_types import CollectorUrl, PositiveSeconds


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
