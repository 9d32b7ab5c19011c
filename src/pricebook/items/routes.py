"""The items over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query, Request, Response, status

from pricebook.core.conditions import (
    TAKES_IF_MATCH,
    TAKES_IF_NONE_MATCH,
    Guarded,
    conditions_of,
)
from pricebook.core.current import Editor, Public, Viewer
from pricebook.core.pagination import Page, link_next, written_page
from pricebook.core.principal import Principal
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, lagging_pool
from pricebook.items import service
from pricebook.items.batch import apply_batch
from pricebook.items.models import Item
from pricebook.items.schemas import (
    Batch,
    BatchResults,
    ItemBySku,
    ItemIn,
    ItemName,
    ItemOut,
    ItemPatch,
    ItemPublic,
    ItemQuery,
    OneItemQuery,
    Sku,
    Suggestions,
    SuggestQuery,
)

router = resource("/items", "items")

SkuInPath = Annotated[Sku, Path()]
AnyItems = Annotated[ItemQuery, Query()]
AnyFields = Annotated[OneItemQuery, Query()]

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "You have it already."}}


# Routes match in order: these two are asked for most.
@router.get(
    "/{item_id:uuid}",
    response_model=ItemOut,
    response_model_exclude_unset=True,
    responses=_NOT_MODIFIED,
    openapi_extra=TAKES_IF_NONE_MATCH,
)
async def get_item(
    item_id: UUID,
    reader: Viewer,
    query: AnyFields,
    request: Request,
) -> Response:
    """Return an item; `cost` and `notes` are for staff alone."""
    # Not injected: each dependency costs this route, the busiest, about a tenth of its time.
    row = await service.get_item(lagging_pool(request, reader), reader, item_id, query.fields)
    return _unless_known(request, row["json"], service.etags(item_id, row["version"])[0])


@router.get("", response_model=Page[ItemOut], response_model_exclude_unset=True)
async def list_items(reader: Viewer, query: AnyItems, request: Request) -> Response:
    """Return a page of the items that pass every filter."""
    return await _page(reader, query, request)


@router.get(
    "/public",
    response_model=Page[ItemPublic],
    response_model_exclude_unset=True,
    dependencies=[Public],
)
async def list_public_items(query: AnyItems, request: Request) -> Response:
    """Return a page of the items, as anyone may see them; it needs no credentials."""
    return await _page(None, query, request)


@router.get(
    "/{item_id:uuid}/public",
    response_model=ItemPublic,
    response_model_exclude_unset=True,
    responses=_NOT_MODIFIED,
    openapi_extra=TAKES_IF_NONE_MATCH,
    dependencies=[Public],
)
async def get_public_item(item_id: UUID, query: AnyFields, request: Request) -> Response:
    """Return an item, as anyone may see it; it needs no credentials."""
    row = await service.get_item(lagging_pool(request, None), None, item_id, query.fields)
    return _unless_known(request, row["json"], service.etags(item_id, row["version"])[0])


@router.get("/suggest", response_model=Suggestions)
async def suggest_items(
    reader: Viewer, query: Annotated[SuggestQuery, Query()], request: Request
) -> dict[str, Any]:
    """Return the items that the text typed so far may mean."""
    return {"items": await service.suggest_items(lagging_pool(request, reader), query)}


@router.get("/{item_id:uuid}/name", response_model=ItemName)
async def get_item_name(item_id: UUID, reader: Viewer, request: Request) -> Row:
    """Return what an item is called."""
    return await service.get_name(lagging_pool(request, reader), item_id)


@router.post("", response_model=ItemOut, status_code=status.HTTP_201_CREATED)
async def create_item(
    new: ItemIn, editor: Editor, session: DbSession, request: Request, response: Response
) -> Item:
    """Add an item."""
    item = await service.create_item(session, new)
    response.headers["Location"] = f"{request.url.path}/{item.id}"
    return _tagged(response, item)


@router.patch("/{item_id:uuid}", response_model=ItemOut, openapi_extra=TAKES_IF_MATCH)
async def update_item(
    item_id: UUID,
    patch: ItemPatch,
    editor: Editor,
    session: DbSession,
    conditions: Guarded,
    response: Response,
) -> Item:
    """Change the given fields of an item; fields left out stay as they are."""
    return _tagged(response, await service.update_item(session, item_id, patch, conditions))


@router.put("/{item_id:uuid}", response_model=ItemOut, openapi_extra=TAKES_IF_MATCH)
async def replace_item(
    item_id: UUID,
    new: ItemIn,
    editor: Editor,
    session: DbSession,
    conditions: Guarded,
    response: Response,
) -> Item:
    """Replace all of an item; fields left out go back to what a new item has."""
    return _tagged(response, await service.replace_item(session, item_id, new, conditions))


@router.delete(
    "/{item_id:uuid}", status_code=status.HTTP_204_NO_CONTENT, openapi_extra=TAKES_IF_MATCH
)
async def delete_item(
    item_id: UUID, editor: Editor, session: DbSession, conditions: Guarded
) -> None:
    """Remove an item."""
    await service.delete_item(session, item_id, conditions)


# "path": an SKU may have slashes in it.
@router.get(
    "/by-sku/{sku:path}",
    response_model=ItemOut,
    response_model_exclude_unset=True,
    responses=_NOT_MODIFIED,
    openapi_extra=TAKES_IF_NONE_MATCH,
)
async def get_item_by_sku(
    sku: SkuInPath,
    reader: Viewer,
    query: AnyFields,
    request: Request,
) -> Response:
    """Return the item with this SKU."""
    reads = lagging_pool(request, reader)
    row = await service.get_item_by_sku(reads, reader, sku, query.fields)
    return _unless_known(request, row["json"], service.etags(row["id"], row["version"])[1])


@router.put(
    "/by-sku/{sku:path}",
    response_model=ItemOut,
    responses={201: {"model": ItemOut, "description": "Added; there was none with this SKU."}},
    openapi_extra=TAKES_IF_MATCH,
)
async def put_item_by_sku(
    sku: SkuInPath,
    new: ItemBySku,
    editor: Editor,
    session: DbSession,
    conditions: Guarded,
    request: Request,
    response: Response,
) -> Item:
    """Replace the item with this SKU (200), or add it if there is none (201)."""
    item, is_new = await service.put_item_by_sku(session, sku, new, conditions)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
        response.headers["Location"] = f"{request.url.path.partition('/by-sku/')[0]}/{item.id}"
    response.headers["ETag"] = service.etags(item.id, item.version)[1]
    return item


@router.post(
    "/batch",
    response_model=BatchResults,
    response_model_exclude_unset=True,
    responses={404: {}, 412: {}, 428: {}},
)
async def change_many_items(
    batch: Batch, editor: Editor, session: DbSession, request: Request
) -> dict[str, Any]:
    """Carry out up to 1,000 creates, updates and deletes in their order: all of them or none."""
    is_match_required = request.app.state.settings.http.require_if_match
    return {"results": await apply_batch(session, batch, is_match_required=is_match_required)}


async def _page(reader: Principal | None, query: ItemQuery, request: Request) -> Response:
    reads = lagging_pool(request, reader)
    rows, cursor = await service.list_items(reads, reader, query)
    response = written_page((row["json"] for row in rows), cursor)
    link_next(request, response, cursor)
    if query.count is not None:
        response.headers["X-Total-Count"] = str(await service.count_items(reads, query))
    return response


def _unless_known(request: Request, json: str, etag: str) -> Response:
    """Answer with the item as PostgreSQL wrote it, or with 304 if the client has it already."""
    # What is shown depends on the reader's role as well.
    headers = {"ETag": etag, "Vary": "Authorization"}
    if conditions_of(request).is_met_by(etag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(json, headers=headers, media_type="application/json")


def _tagged(response: Response, item: Item) -> Item:
    response.headers["ETag"] = service.etags(item.id, item.version)[0]
    return item
