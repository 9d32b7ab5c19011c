"""The groups of settings for those who run the service."""

from typing import Annotated

from pydantic import Field, SecretStr

from pricebook.core.setting_groups import Group
from pricebook.core.setting_types import PositiveSeconds


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
