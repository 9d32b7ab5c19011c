"""Exports as files: who may ask for which, and who may read one while it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, cast, column, literal, select, table
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.clock import now
from pricebook.core.errors import PricebookError
from pricebook.core.file_links import FileLinks, Linked
from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.exports.errors import (
    ExportExpired,
    ExportNotFound,
    ExportUnready,
    LinkInvalid,
    OfCsvAlone,
)
from pricebook.exports.schemas import (
    ExportQuery,
    FileLink,
    LinkQuery,
    NewItemsExport,
    NewUsersExport,
    Resource,
)
from pricebook.exports.service import QUERIES, export_of
from pricebook.jobs import queries as jobs
from pricebook.jobs.errors import JobBeyondScopes
from pricebook.jobs.models import Job
from pricebook.jobs.service import NewJob, enqueue
from pricebook.jobs.status import Status
from pricebook.users.models import User

KIND = "export_file"
FOLDER = "exports"

NEEDS: Mapping[Resource, tuple[Role, Scope]] = {
    "items": (Role.VIEWER, Scope.ITEMS_READ),
    "users": (Role.ADMIN, Scope.USERS_READ),
}
"""What it takes to export each resource."""

_OF_CSV = ("delimiter", "bom", "guard")
# A guess that decides nothing but who goes first.
_ROWS_A_SECOND = 200_000
_CLASSES = table("pg_class", column("oid"), column("reltuples"))


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A file that can be read now: where it lies, and what it says of itself."""

    name: str
    media_type: str
    filename: str


async def ask_for_file(
    session: AsyncSession, asker: Principal, new: NewItemsExport | NewUsersExport
) -> Job:
    """Add the job that makes a file.

    Raises:
        FieldHidden: A field is not for the asker.
        FieldUnknown: There is no such field.
        OfCsvAlone: It says of another format how CSV is written.

    """
    params = _params_of(new)
    try:
        export_of(new.resource, new.format, asker, query_of(params))
    except PricebookError as error:
        error.pointer = error.pointer.removeprefix("query")
        raise
    role, scope = NEEDS[new.resource]
    seconds = await _expected_seconds(session, new.resource)
    job = NewJob(
        kind=KIND,
        params=params,
        expected_seconds=seconds,
        role=role,
        scope=scope,
        is_told=new.notify,
    )
    return await enqueue(session, asker, job)


def _params_of(new: NewItemsExport | NewUsersExport) -> dict[str, Any]:
    """Return what the job is told, as JSON has it."""
    form = new.model_dump(include={"fields", *_OF_CSV}, exclude_none=True)
    for name in _OF_CSV:
        if name in form and new.format != "csv":
            raise OfCsvAlone(pointer=f"/{name}")
    filters = new.filters.model_dump(mode="json", exclude_unset=True)
    return {
        "resource": new.resource,
        "format": new.format,
        "compression": new.compression,
        "query": {**filters, **form},
    }


def query_of(params: Mapping[str, Any]) -> ExportQuery:
    """Return what a job's params ask of a stream of the same rows."""
    return QUERIES[params["resource"], params["format"]].model_validate(params["query"])


def path_of(job_id: UUID) -> str:
    """Return where the file of a job is read."""
    return f"/v1/exports/{job_id}/file"


async def _expected_seconds(session: AsyncSession, resource: Resource) -> float:
    relation = cast(literal(resource), REGCLASS)
    rows = await session.scalar(select(_CLASSES.c.reltuples).where(_CLASSES.c.oid == relation))
    return max(1.0, (rows or 0) / _ROWS_A_SECOND)


async def readable_file(reads: ReadPool, reader: Principal, job_id: UUID) -> ReadyFile:
    """Return the file of an export that someone may read: their own, or anyone's for admins.

    Raises:
        ExportExpired: It is no longer kept.
        ExportNotFound: There is none, or it is not for this reader.
        ExportUnready: Its job has not succeeded.
        JobBeyondScopes: The reader's key could not have asked for it.

    """
    return _ready(await _readable(reads, reader, job_id))


async def link_to_file(
    reads: ReadPool, links: FileLinks, reader: Principal, job_id: UUID
) -> FileLink:
    """Return a link to someone's own file; raises as `readable_file` does."""
    found = await _readable(reads, reader, job_id)
    _ready(found)
    owned = await reads.row(Compiled(_owned(job_id).where(Job.owner_id == reader.user_id)))
    if owned is None:
        raise ExportNotFound(job_id=job_id)
    expires_at = datetime.fromisoformat(owned["result"]["expires_at"])
    return FileLink(link=links.url(_linked(owned), expires_at), expires_at=expires_at)


async def linked_file(
    reads: ReadPool, links: FileLinks, job_id: UUID, link: LinkQuery
) -> ReadyFile:
    """Return the file that a link opens, whoever has it.

    Raises:
        ExportExpired: It is no longer kept.
        LinkInvalid: The link was not made here, or has ended.

    """
    owned = await reads.row(Compiled(_owned(job_id)))
    if owned is None or link.expires is None or link.signature is None:
        raise LinkInvalid
    if not links.opens(_linked(owned), link.expires, link.signature):
        raise LinkInvalid
    return _ready(owned)


async def _readable(reads: ReadPool, reader: Principal, job_id: UUID) -> Row:
    seen = jobs.visible_to(reader).add_columns(Job.scope, Job.files)
    found = await reads.row(Compiled(seen.where(Job.id == job_id, Job.kind == KIND)))
    if found is None:
        raise ExportNotFound(job_id=job_id)
    if not reader.allows(Scope(found["scope"])):
        raise JobBeyondScopes(job_id=job_id)
    if found["status"] != Status.SUCCEEDED:
        raise ExportUnready(job_id=job_id)
    # It holds what its owner could see when it was made, who may have been somebody then.
    if not reader.role.includes(Role(found["result"]["role"])):
        raise ExportNotFound(job_id=job_id)
    return found


def _owned(job_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select a file that is ready, with what its owner logs in with now."""
    return (
        select(Job.result, Job.files, Job.owner_id, User.credentials_epoch)
        .join(User, User.id == Job.owner_id)
        .where(
            Job.id == job_id,
            Job.kind == KIND,
            Job.status == Status.SUCCEEDED,
            User.disabled_at.is_(None),
        )
    )


def _linked(owned: Row) -> Linked:
    return Linked(owned["result"]["file"], owned["owner_id"], owned["credentials_epoch"])


def _ready(found: Row) -> ReadyFile:
    result = found["result"]
    if datetime.fromisoformat(result["expires_at"]) <= now():
        raise ExportExpired
    (name,) = found["files"]
    return ReadyFile(name, result["media_type"], result["filename"])
