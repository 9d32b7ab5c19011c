"""What clients send and get about the inbox, preferences and watches."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pricebook.core.pagination import Cursor, Limit, Page
from pricebook.core.schemas import Id, Input, Moment, Output, Patch, unchanged
from pricebook.notifications.kinds import Digest, Kind

Switch = Annotated[bool, Field(strict=True)]


def _stays_on(is_on: bool) -> bool:  # noqa: FBT001 -- pydantic hands the value in
    if not is_on:
        message = "cannot be switched off: it keeps the account safe"
        raise ValueError(message)
    return is_on


class NotificationOut(Output):
    """An entry of your inbox."""

    id: Id
    kind: Kind
    event_id: Annotated[Id, Field(description="The event that it tells of.")]
    data: Annotated[dict[str, Any], Field(description="What there is to know, by its kind.")]
    read_at: Moment | None
    created_at: Moment


class Inbox(Page[NotificationOut]):
    """One page of your inbox."""

    unread_count: Annotated[int, Field(description="Unread entries on all pages.")]


class InboxQuery(Input):
    """From where on to list, newest first."""

    unread: bool = Field(False, description="Only what is not read yet.")
    limit: Limit = 50
    cursor: Cursor = None


class MailedLink(Input):
    """What the way out of a mail says."""

    token: Annotated[str, Field(max_length=300, description="From the link in the mail.")]


class NotificationPatch(Patch):
    """Whether an entry is read."""

    read: Switch = unchanged()


class Channels(Output):
    """Which ways one kind of notification takes."""

    inbox: bool
    email: bool


class Kinds(Output):
    """Each kind of notification."""

    price_changed: Channels
    job_finished: Channels
    webhook_trouble: Channels
    security: Channels


class PreferencesOut(Output):
    """How you want to be told."""

    digest: Annotated[Digest, Field(description="How often you are mailed about prices.")]
    kinds: Kinds


class ChannelsPatch(Patch):
    """Ways to switch on and off."""

    inbox: Switch = unchanged()
    email: Switch = unchanged()


class SecurityPatch(Patch):
    """Ways to switch on and off; mail about your account's safety stays on."""

    inbox: Switch = unchanged()
    email: Annotated[Switch, AfterValidator(_stays_on)] = unchanged()


class KindsPatch(Patch):
    """Kinds whose ways change."""

    price_changed: ChannelsPatch = unchanged()
    job_finished: ChannelsPatch = unchanged()
    webhook_trouble: ChannelsPatch = unchanged()
    security: SecurityPatch = unchanged()


class PreferencesPatch(Patch):
    """What changes in how you want to be told."""

    digest: Digest = unchanged()
    kinds: KindsPatch = unchanged()


class ItemWatchOut(Output):
    """An item that you watch."""

    item_id: Id
    sku: str
    name: str
    created_at: Moment


class TagWatchOut(Output):
    """A tag that you watch: every item that has it."""

    tag: str
    created_at: Moment


class Watches(Output):
    """All that you watch, newest first."""

    items: list[ItemWatchOut]
    tags: list[TagWatchOut]
