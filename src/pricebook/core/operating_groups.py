"""The groups of settings that are about running Pricebook on more than one machine."""

from pydantic import Field

from pricebook.core.setting_groups import Group
from pricebook.core.setting_types import PositiveSeconds


class ReplicaSettings(Group):
    """Reads that go to a replica (PRICEBOOK_DATABASE_REPLICA_URL)."""

    max_lag_seconds: PositiveSeconds = Field(
        10, description="A replica that is further behind is not read until it has caught up."
    )
