"""What may have become of a job."""

from enum import StrEnum


class Status(StrEnum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in {Status.QUEUED, Status.RUNNING}
