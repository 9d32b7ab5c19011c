"""What clients send and get about webhooks."""

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, computed_field
from yarl import URL

from pricebook.core.deliveries import Status
from pricebook.core.outbox import EVENT_TYPES
from pricebook.core.pagination import Cursor, Limit
from pricebook.core.schemas import (
    Id,
    Input,
    Moment,
    MomentIn,
    Output,
    Patch,
    Text,
    unchanged,
)
from pricebook.items.schemas import Tag
from pricebook.webhooks.events import NEVER_TOLD

_MOST_URL_CHARACTERS = 2_000
_USER = re.compile(r"[^/]*//[^/?#]*@")
# RFC 1123, section 2.1, and the underscores that some hosts' names hold all the same.
_NAME = re.compile(r"(?=.{1,253}\.?$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.IGNORECASE)
_NOT_IN_URLS = re.compile(r"[\s\\\x00-\x1f\x7f]")


def _receivable(given: str) -> str:
    """Refuse what the sender's own reading of URLs could not send to as it stands."""
    message = _fault_of(given)
    if message is not None:
        raise ValueError(message)
    return given


def _fault_of(given: str) -> str | None:
    if _NOT_IN_URLS.search(given):
        return "must not hold spaces, backslashes or control characters"
    try:
        url = URL(given)
        port = url.port
    except (ValueError, UnicodeError):
        return "must be a URL"
    faults = {
        "must begin with https:// or http:// and a host": url.scheme not in {"http", "https"}
        or not url.raw_host,
        "must not hold a user or a password": _USER.match(given) is not None,
        "must name a host that can be looked up": not _is_host(url.raw_host or ""),
        "must name a port from 1 to 65535": port == 0,
        "must not hold a fragment": "#" in given,
    }
    return next((fault for fault, is_found in faults.items() if is_found), None)


def _is_host(host: str) -> bool:
    try:
        return bool(_NAME.fullmatch(host) or ip_address(host))
    except ValueError:
        return False


Url = Annotated[
    Text,
    Field(min_length=1, max_length=_MOST_URL_CHARACTERS),
    AfterValidator(_receivable),
    WithJsonSchema(
        {
            "type": "string",
            "format": "uri",
            "minLength": 1,
            "maxLength": _MOST_URL_CHARACTERS,
            "examples": ["https://shop.example.com/prices"],
        }
    ),
]


def told_types() -> list[str]:
    """Return the kinds of event that an endpoint may ask for, by name."""
    return sorted(EVENT_TYPES.keys() - NEVER_TOLD)


def _known(name: str) -> str:
    if name not in told_types():
        message = f"must be one of {', '.join(told_types())}"
        raise ValueError(message)
    return name


def _name_types(schema: dict[str, Any]) -> None:
    """Name them when the document is made: by then all modules of events are imported."""
    schema["enum"] = told_types()


EventName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_name_types)]

EventNames = Annotated[
    list[EventName],
    Field(
        min_length=1,
        max_length=100,
        description="The kinds of event to tell; null for all, also those yet to be invented.",
    ),
    AfterValidator(lambda names: sorted(set(names))),
]

TagNames = Annotated[
    list[Tag],
    Field(
        min_length=1,
        max_length=50,
        description="Tell only events about items with one of these tags; null for all events.",
    ),
    AfterValidator(lambda tags: sorted(set(tags))),
]

Description = Annotated[Text, Field(max_length=1_000)]
Paused = Annotated[
    bool,
    Field(
        strict=True,
        description="While paused, deliveries wait; false also takes up again what is disabled.",
    ),
]


class WebhookIn(Input):
    """A webhook to make."""

    url: Url
    description: Description | None = None
    events: EventNames | None = None
    tags: TagNames | None = None


class WebhookPatch(Patch):
    """What may change of a webhook."""

    url: Url = unchanged()
    description: Description | None = unchanged()
    events: EventNames | None = unchanged()
    tags: TagNames | None = unchanged()
    paused: Paused = unchanged()


class WebhookListing(Input):
    """From where on to list webhooks, newest first."""

    limit: Limit = 50
    cursor: Cursor = None


class WebhookOut(Output):
    """A webhook, without its secret."""

    id: Id
    owner_id: Annotated[Id | None, Field(description="Who made it, and hears of its trouble.")]
    url: str
    description: str | None
    events: list[str] | None
    tags: list[str] | None
    paused_at: Moment | None
    disabled_at: Moment | None
    disabled_reason: Annotated[
        Literal["gone", "failing"] | None,
        Field(description="gone: it answered 410. failing: nothing reached it for days."),
    ]
    failing_since: Annotated[
        Moment | None, Field(description="The first failure since the last success.")
    ]
    old_secret_until: Annotated[
        Moment | None, Field(description="Until when the secret before this one signs too.")
    ]
    created_at: Moment
    updated_at: Moment

    @computed_field
    def status(self) -> Literal["active", "paused", "disabled"]:
        """Whether it is told anything just now."""
        if self.disabled_at is not None:
            return "disabled"
        return "active" if self.paused_at is None else "paused"


class NewWebhook(WebhookOut):
    """A webhook with a new secret, which is shown this once."""

    secret: Annotated[str, Field(examples=["whsec_…"])]


class DeliveryListing(WebhookListing):
    """Which deliveries to list, and from where on."""

    status: Status | None = None


class DeliveryOut(Output):
    """What has become of telling a webhook of one event."""

    id: Id
    message_id: Annotated[Id, Field(description="The event's id, and the `webhook-id` header.")]
    type: str
    status: Status
    attempt_count: Annotated[int, Field(description="In the present round.")]
    next_attempt_at: Annotated[Moment | None, Field(description="While it is pending.")]
    settled_at: Moment | None
    created_at: Moment
    last_status_code: int | None
    last_error: str | None


class AttemptOut(Output):
    """One try to deliver."""

    id: Id
    started_at: Moment
    duration_ms: int
    status_code: Annotated[int | None, Field(description="null: no answer came.")]
    error: str | None
    response_head: Annotated[str | None, Field(description="The answer's first kibibyte.")]


class DeliveryDetail(DeliveryOut):
    """A delivery, with the body as it is sent and its latest 100 attempts, newest first."""

    body: str
    attempts: list[AttemptOut]


class ReplayIn(Input):
    """Which events to tell again."""

    since: MomentIn
    only_undelivered: Annotated[bool, Field(strict=True)] = False


class ReplayOut(Output):
    """How many deliveries are due now."""

    deliveries: int
