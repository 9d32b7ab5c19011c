"""The inbox, preferences and watches over HTTP; all but the way out of a mail is for people."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query, Request, Response, status
from fastapi.responses import HTMLResponse

from pricebook.core.current import Person, Public
from pricebook.core.pagination import link_next
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, Reads
from pricebook.items.schemas import Tag
from pricebook.notifications import pages, service
from pricebook.notifications.models import Notification
from pricebook.notifications.schemas import (
    Inbox,
    InboxQuery,
    MailedLink,
    NotificationOut,
    NotificationPatch,
    PreferencesOut,
    PreferencesPatch,
    Watches,
)
from pricebook.notifications.unsubscribing import Unsubscriber

router = resource("/notifications", "notifications")
watches = resource("", "notifications")

TagInPath = Annotated[Tag, Path()]
AnyLink = Annotated[MailedLink, Query()]

_PAGE_HEADERS = {"Content-Security-Policy": pages.POLICY, "Cache-Control": "no-store"}


@router.get("", response_model=Inbox)
async def read_inbox(
    person: Person,
    query: Annotated[InboxQuery, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Row:
    """List what you were told, newest first."""
    page = await service.read_inbox(reads, person, query)
    link_next(request, response, page["next_cursor"])
    return page


@router.patch("/{notification_id:uuid}", response_model=NotificationOut)
async def mark_notification(
    notification_id: UUID, patch: NotificationPatch, person: Person, session: DbSession
) -> Notification:
    """Mark an entry of your inbox as read, or as unread."""
    return await service.mark_notification(session, person, notification_id, patch)


@router.post("/read-all", status_code=status.HTTP_204_NO_CONTENT)
async def mark_all_notifications_read(person: Person, session: DbSession) -> None:
    """Mark all of your inbox as read."""
    await service.mark_all_read(session, person)


@router.get("/preferences", response_model=PreferencesOut)
async def read_preferences(person: Person, reads: Reads) -> Row:
    """Return how you want to be told of what."""
    return await service.get_preferences(reads, person)


@router.patch("/preferences", response_model=PreferencesOut)
async def update_preferences(patch: PreferencesPatch, person: Person, session: DbSession) -> Row:
    """Change how you want to be told; what is left out stays as it is."""
    return await service.update_preferences(session, person, patch)


@router.get("/unsubscribe", response_class=HTMLResponse, dependencies=[Public])
async def ask_to_unsubscribe(link: AnyLink, request: Request) -> HTMLResponse:
    """Show a page with a button that stops the mail which led here; it needs no credentials."""
    _user_id, kind = _unsubscriber(request).read(link.token)
    return HTMLResponse(pages.asking(kind), headers=_PAGE_HEADERS)


@router.post("/unsubscribe", response_class=HTMLResponse, dependencies=[Public])
async def unsubscribe(link: AnyLink, session: DbSession, request: Request) -> HTMLResponse:
    """Stop the kind of mail that carried the token, at one click (RFC 8058); any body will do."""
    kind = await service.unsubscribe(session, _unsubscriber(request), link.token)
    return HTMLResponse(pages.confirming(kind), headers=_PAGE_HEADERS)


def _unsubscriber(request: Request) -> Unsubscriber:
    return Unsubscriber(request.app.state.settings)


@watches.get("/watches", response_model=Watches)
async def list_watches(person: Person, reads: Reads) -> Mapping[str, Any]:
    """List the items and tags that you watch."""
    return await service.list_watches(reads, person)


@watches.put("/items/{item_id:uuid}/watch", status_code=status.HTTP_204_NO_CONTENT)
async def watch_item(item_id: UUID, person: Person, session: DbSession) -> None:
    """Watch an item: you are told when its price changes."""
    await service.watch_item(session, person, item_id)


@watches.delete("/items/{item_id:uuid}/watch", status_code=status.HTTP_204_NO_CONTENT)
async def unwatch_item(item_id: UUID, person: Person, session: DbSession) -> None:
    """Watch an item no more."""
    await service.unwatch_item(session, person, item_id)


@watches.put("/tags/{tag:path}/watch", status_code=status.HTTP_204_NO_CONTENT)
async def watch_tag(tag: TagInPath, person: Person, session: DbSession) -> None:
    """Watch a tag: you are told when the price of anything that has it changes."""
    await service.watch_tag(session, person, tag)


@watches.delete("/tags/{tag:path}/watch", status_code=status.HTTP_204_NO_CONTENT)
async def unwatch_tag(tag: TagInPath, person: Person, session: DbSession) -> None:
    """Watch a tag no more."""
    await service.unwatch_tag(session, person, tag)
