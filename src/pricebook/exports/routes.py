"""Exports over HTTP: streams, files that a job makes, and links to them."""

from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import Body, Depends, Query, Request, Response, status

from pricebook.core.current import AdminReader, Guard, SignedIn, Viewer, count_anonymous
from pricebook.core.downloads import Download, DownloadResponse, documented
from pricebook.core.file_download import documented_file, file_response
from pricebook.core.file_links import FileLinks
from pricebook.core.principal import Principal
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, Reads
from pricebook.exports import files
from pricebook.exports.schemas import (
    ExportQuery,
    FileLink,
    ItemsAsCsv,
    ItemsAsJson,
    LinkQuery,
    NewItemsExport,
    NewUsersExport,
    UsersAsCsv,
    UsersAsJson,
)
from pricebook.exports.service import Export, body, export_of, rows_of
from pricebook.jobs.models import Job
from pricebook.jobs.schemas import JobOut

router = resource("/exports", "exports")
file_router = resource("/exports", "exports")

NewExportIn = Annotated[NewItemsExport | NewUsersExport, Body(discriminator="resource")]

_CSV = (
    "sku,name,description,price,currency,tax_rate,tags\r\n"
    '"HAM-1","Hammer",,12.5000,"EUR",10.500,"hand;tools"\r\n'
)
_JSON = '{"id":"019a9e5d-77aa-7c10-9b1e-2f3a4b5c6d7e","sku":"HAM-1","price":"12.5000"}\n'
_USERS_CSV = 'email,name,role\r\n"ann@shop.example.com","Ann","editor"\r\n'
_USERS_JSON = (
    '{"id":"019a9e5d-77aa-7c10-9b1e-2f3a4b5c6d7e","email":"ann@shop.example.com","name":"Ann"}\n'
)


@router.get(
    "/items.csv",
    status_code=status.HTTP_200_OK,
    response_class=DownloadResponse,
    responses=documented("text/csv", _CSV),
)
async def export_items_csv(
    reader: Viewer, query: Annotated[ItemsAsCsv, Query()], request: Request
) -> Response:
    """Download all items that pass every filter, as CSV (RFC 4180), as they are at this moment.

    The columns are those that an import takes; `fields` asks for others. `cost` and `notes` are
    for staff alone. A whole export ends with the trailer `X-Row-Count`; one that fails midway is
    cut off, and never ends neatly.
    """
    return _download(request, export_of("items", "csv", reader, query), query)


@router.get(
    "/items.jsonl",
    status_code=status.HTTP_200_OK,
    response_class=DownloadResponse,
    responses=documented("application/jsonl", _JSON),
)
async def export_items_jsonl(
    reader: Viewer, query: Annotated[ItemsAsJson, Query()], request: Request
) -> Response:
    """Download all items that pass every filter, each an object of the list on a line of its own.

    A whole export ends with the trailer `X-Row-Count`; one that fails midway is cut off.
    """
    return _download(request, export_of("items", "jsonl", reader, query), query)


@router.get(
    "/users.csv",
    status_code=status.HTTP_200_OK,
    response_class=DownloadResponse,
    responses=documented("text/csv", _USERS_CSV),
)
async def export_users_csv(
    admin: AdminReader, query: Annotated[UsersAsCsv, Query()], request: Request
) -> Response:
    """Download the users as CSV, as items are."""
    return _download(request, export_of("users", "csv", admin, query), query)


@router.get(
    "/users.jsonl",
    status_code=status.HTTP_200_OK,
    response_class=DownloadResponse,
    responses=documented("application/jsonl", _USERS_JSON),
)
async def export_users_jsonl(
    admin: AdminReader, query: Annotated[UsersAsJson, Query()], request: Request
) -> Response:
    """Download the users as lines of JSON, as items are."""
    return _download(request, export_of("users", "jsonl", admin, query), query)


def _download(request: Request, export: Export, query: ExportQuery) -> Response:
    download = Download(
        media_type=export.media_type,
        filename=export.filename,
        chunks=partial(body, export=export),
        count=partial(rows_of, export=export) if query.count else None,
    )
    return DownloadResponse(request, download)


_GUARDS: Final = {name: Guard(*needed) for name, needed in files.NEEDS.items()}


class _LinkOrGuard(Guard):
    """Lets whoever has a link pass, to be judged by it; everybody else as a guard does."""

    async def __call__(self, request: Request) -> Principal | None:  # type: ignore[override]  # nobody has logged in
        if "signature" not in request.query_params:
            return await super().__call__(request)
        await count_anonymous(request)
        return None


def _links(request: Request) -> FileLinks:
    return FileLinks(request.app.state.settings)


@file_router.post("", response_model=JobOut, status_code=status.HTTP_202_ACCEPTED)
async def create_export(
    asker: SignedIn, new: NewExportIn, session: DbSession, request: Request, response: Response
) -> Job:
    """Have a file made of items, or of users if you are an admin.

    It is a job: watch it at its `Location`. Its `result` says how many rows and bytes the file
    has, its SHA-256, and where and until when it can be read. It holds what its owner may see.
    """
    await _GUARDS[new.resource](request)
    job = await files.ask_for_file(session, asker, new)
    response.headers["Location"] = f"{request.url.path.removesuffix('/exports')}/jobs/{job.id}"
    return job


@file_router.get(
    "/{job_id:uuid}/file",
    response_class=Response,
    responses=documented_file("An export, as it was asked for."),
)
async def read_export_file(
    reader: Annotated[Principal | None, Depends(_LinkOrGuard())],
    job_id: UUID,
    link: Annotated[LinkQuery, Query()],
    reads: Reads,
    request: Request,
) -> Response:
    """Download a file, or a range of it: with the token of its owner, or by a link.

    It is there until `expires_at` of its job's result.
    """
    if reader is None:
        file = await files.linked_file(reads, _links(request), job_id, link)
    else:
        file = await files.readable_file(reads, reader, job_id)
    return await file_response(
        request,
        request.app.state.files,
        file.name,
        media_type=file.media_type,
        filename=file.filename,
    )


@file_router.get(
    "/{job_id:uuid}/link",
    response_model=FileLink,
    responses={409: {"description": "There is no file yet."}},
)
async def read_export_link(
    reader: SignedIn, job_id: UUID, reads: Reads, request: Request, response: Response
) -> FileLink:
    """Make a link to your file that works without a token, for a browser or somebody else.

    It ends with the file, and sooner if your password or your role changes.
    """
    response.headers["Cache-Control"] = "no-store"
    return await files.link_to_file(reads, _links(request), reader, job_id)
