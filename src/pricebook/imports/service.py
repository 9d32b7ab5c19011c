"""What can be done with imports, but for the work itself."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.reading import Compiled, ReadPool
from pricebook.core.uploads import Upload
from pricebook.imports import queries
from pricebook.imports.errors import ErrorsNotFound
from pricebook.imports.schemas import ImportQuery
from pricebook.jobs.models import Job
from pricebook.jobs.service import NewJob, enqueue

FOLDER = "imports"
"""Where in `core.files` uploads and refused rows lie."""

# Of a file as it is sent, which may be packed; a guess for the order of jobs.
_BYTES_PER_SECOND = 10_000_000


async def begin(
    session: AsyncSession, editor: Principal, query: ImportQuery, upload: Upload
) -> Job:
    """Have a file imported that has been received."""
    errors_file = f"{upload.name}.errors.csv"
    new = NewJob(
        kind=queries.KIND,
        params={
            "file": upload.name,
            "errors_file": errors_file,
            "name": upload.filename or query.name,
            "size": upload.size,
            "columns": query.columns,
            **query.model_dump(include=_PASSED_ON),
        },
        expected_seconds=1 + upload.size / _BYTES_PER_SECOND,
        role=Role.EDITOR,
        scope=Scope.ITEMS_WRITE,
        files=[upload.name, errors_file],
        inputs=[upload.name],
        is_told=query.notify,
    )
    return await enqueue(session, editor, new)


_PASSED_ON = {"mode", "skip_refused", "encoding", "delimiter", "decimal", "guarded"}


async def find_errors(reads: ReadPool, reader: Principal, job_id: UUID) -> str:
    """Return the name in `core.files` of the rows that an import has refused.

    Raises:
        ErrorsNotFound: There is no such import for this reader, or it has refused none.

    """
    name = await reads.value(Compiled(queries.errors_file(reader, job_id)))
    if name is None:
        raise ErrorsNotFound(job_id=job_id)
    return str(name)
