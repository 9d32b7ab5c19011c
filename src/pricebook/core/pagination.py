"""Pages by keyset: an opaque cursor says where the last page ended, so none is ever counted."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import Query, Request, Response

from pricebook.core.errors import Invalid
from pricebook.core.reading import Row
from pricebook.core.schemas import Output

T = TypeVar("T")

MAX_LIMIT = 200

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries on a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=2_000, description="Where the page begins: `next_cursor` of the one before."),
]


class Page(Output, Generic[T]):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None = None


def written_page(entries: Iterable[str], next_cursor: str | None) -> Response:
    """Answer with a `Page` whose entries are JSON already; see `reading.as_json`."""
    items = ",".join(entries)
    cursor = orjson.dumps(next_cursor).decode()
    return Response(f'{{"items":[{items}],"next_cursor":{cursor}}}', media_type="application/json")


class CursorInvalid(Invalid):
    """The cursor is not one that this list gave out."""


def encode_cursor(order: str, values: Sequence[object]) -> str:
    """Return a cursor that goes on after `values` (JSON-able), in a list sorted by `order`."""
    text = orjson.dumps([order, *values], default=str)
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_cursor(cursor: str, order: str, count: int) -> list[Any]:
    """Return the `count` values of a cursor.

    Raises:
        CursorInvalid: It is none of ours, or of a list sorted another way.

    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise CursorInvalid(pointer="query/cursor") from error
    if not isinstance(found, list) or len(found) != count + 1 or found[0] != order:
        raise CursorInvalid(pointer="query/cursor")
    return found[1:]


_NEWEST_FIRST = "newest"


def id_before(cursor: str | None) -> UUID | None:
    """Return the id below which a page of a list begins that is ordered by falling ids.

    Raises:
        CursorInvalid: It is no cursor of such a list.

    """
    if cursor is None:
        return None
    (last,) = decode_cursor(cursor, _NEWEST_FIRST, 1)
    try:
        return UUID(last)
    except (AttributeError, TypeError, ValueError) as error:
        raise CursorInvalid(pointer="query/cursor") from error


def newest_first(found: list[Row], limit: int) -> Page[Row]:
    """Cut a page off rows in the order of falling ids: one row more tells that another follows."""
    if len(found) <= limit:
        return Page(items=found)
    last = found[limit - 1]["id"]
    return Page(items=found[:limit], next_cursor=encode_cursor(_NEWEST_FIRST, [last]))


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Announce the next page as RFC 8288 has it, keeping the request's own parameters."""
    if cursor is None:
        return
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*kept, ("cursor", cursor)])
    response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
