"""Imports over HTTP: a file is sent, and a job tells what becomes of its rows."""

from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import Query, Request, Response, status

from pricebook.core.current import Editor, Viewer
from pricebook.core.file_download import file_response
from pricebook.core.idempotency import IdempotencyKey, claim
from pricebook.core.routing import UploadRoute, resource
from pricebook.core.session import DbSession, Reads
from pricebook.core.uploads import UploadKey, Uploads
from pricebook.imports import service
from pricebook.imports.schemas import ImportQuery
from pricebook.jobs.models import Job
from pricebook.jobs.schemas import JobOut

router = resource("/imports", "imports", route_class=UploadRoute)

UPLOAD_PATH = "/imports/items"

_MEDIA_TYPES = (
    "text/csv",
    "text/tab-separated-values",
    "text/plain",
    "application/gzip",
    "application/zstd",
    "application/octet-stream",
)
_ROWS = "sku,name,price,currency\r\nH-1,Hammer,12.50,EUR\r\n"
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "required": ["file"],
    "additionalProperties": False,
}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "CSV as people have it, whatever it is called: with comma, semicolon, tab "
        "or `|` between the cells; in UTF-8, UTF-16 or Windows-1252; packed with gzip or zstd, "
        "or not. Its first line names the columns.",
        "content": {
            **{name: {"schema": {"type": "string", "format": "binary"}} for name in _MEDIA_TYPES},
            "text/csv": {"schema": {"type": "string"}, "example": _ROWS},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
_CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows as they were sent, each with its line and what is wrong with it.",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    },
    206: {"description": "The range of it that was asked for."},
    304: {"description": "You have it already."},
    412: {},
    416: {},
}


@router.post(
    "/items",
    response_model=JobOut,
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        408: {},
        413: {"description": "The file is larger than PRICEBOOK_IMPORTS__MAX_BYTES."},
    },
    openapi_extra=_UPLOAD,
)
async def import_items(
    editor: Editor,
    query: Annotated[ImportQuery, Query()],
    request: Request,
    response: Response,
    session: DbSession,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Send a file of items. The job at `Location` tells what it would change, or changes it.

    Its `result` counts the rows that are new, changed, unchanged and refused, and says what is
    wrong with the first hundred; all of those are in `errors.csv`, to be mended and sent again.

    Columns that the file lacks stay as they are. An empty cell clears its field where that may be
    empty. `id`, `version`, `created_at`, `updated_at`, `line` and `reason` are left aside.
    """
    uploads = cast("Uploads", request.app.state.uploads)
    key = None if idempotency_key is None else UploadKey(editor.credential_id, idempotency_key)
    async with uploads.receive(request, service.FOLDER, _MEDIA_TYPES, key) as upload:
        if idempotency_key is not None:
            await claim(request, session, idempotency_key, upload.digest)
        job = await service.begin(session, editor, query, upload)
    path = request.url.path.removesuffix(UPLOAD_PATH)
    response.headers["Location"] = f"{path}/jobs/{job.id}"
    return job


@router.get(
    "/{job_id:uuid}/errors.csv",
    status_code=status.HTTP_200_OK,
    response_class=Response,
    responses=_CSV,
)
async def read_import_errors(
    reader: Viewer, job_id: UUID, reads: Reads, request: Request
) -> Response:
    """Return the rows that an import has refused, to be mended and sent again."""
    name = await service.find_errors(reads, reader, job_id)
    return await file_response(
        request,
        request.app.state.files,
        name,
        media_type="text/csv; charset=utf-8; header=present",
        filename="errors.csv",
    )
