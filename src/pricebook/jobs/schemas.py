"""What clients send and get about jobs."""

from typing import Annotated, Any

from pydantic import Field

from pricebook.core.pagination import Cursor, Limit
from pricebook.core.schemas import Id, Input, Moment, Output
from pricebook.jobs.status import Status

KindName = Annotated[str, Field(pattern=r"^[a-z_]{1,50}$", examples=["import_items"])]


class JobListing(Input):
    """Which jobs to list, and from where on."""

    status: Status | None = None
    kind: KindName | None = None
    limit: Limit = 50
    cursor: Cursor = None


class LogQuery(Input):
    """Whether to wait for what is yet to be said."""

    follow: bool = Field(default=True, description="false ends with what is there by now.")


class JobOut(Output):
    """A job: how far it is, or what has become of it."""

    id: Id
    kind: str
    status: Status
    phase: Annotated[str | None, Field(description="What is being done, while it runs.")]
    done: Annotated[int, Field(description="How much of `total` is done in this phase.")]
    total: Annotated[int | None, Field(description="null: not known.")]
    rate: Annotated[float | None, Field(description="Done in a second, once that is known.")]
    attempts: Annotated[int, Field(description="How often it was started.")]
    result: Annotated[dict[str, Any] | None, Field(description="What it found, by its kind.")]
    error: Annotated[str | None, Field(description="Why it failed.")]
    owner_id: Annotated[
        Id | None, Field(description="null: whoever asked for it is gone, or is the operator.")
    ]
    cancel_requested_at: Moment | None
    created_at: Moment
    started_at: Annotated[Moment | None, Field(description="The latest start.")]
    finished_at: Moment | None
