"""The job that writes an export to a file, out of one snapshot."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.compression import Encoding, compressed
from pricebook.core.reading import ReadPool
from pricebook.core.replica import following
from pricebook.core.replica_snapshots import ReplicaFailedError, Snapshots
from pricebook.core.settings import Settings
from pricebook.core.snapshots import Snapshot
from pricebook.exports.files import FOLDER, path_of, query_of
from pricebook.exports.schemas import Compression
from pricebook.exports.service import Export, body, export_of
from pricebook.jobs.models import Job
from pricebook.jobs.run import CancelRequestedError, JobRefused, LeaseLostError, Result, Run

_ENCODINGS: Mapping[Compression, Encoding] = {"none": "identity", "gzip": "gzip", "zstd": "zstd"}
# A compressed file is what it is: to name it as an encoding would have browsers unpack it.
_PACKED: Mapping[Compression, tuple[str, str]] = {
    "gzip": ("application/gzip", ".gz"),
    "zstd": ("application/zstd", ".zst"),
}

_TOO_LONG = "It took longer than an export may; ask for less of the list."


@dataclass(slots=True)
class Written:
    """What has gone to the file so far."""

    rows: int = 0
    bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


async def export_file(run: Run) -> Result | None:
    """Write the file that was asked for, with what its owner may see at this moment."""
    asked = run.params
    export = export_of(asked["resource"], asked["format"], run.owner, query_of(asked))
    # Of this attempt alone: one before it that lives on as a ghost does not write over it.
    name = f"{FOLDER}/{run.job.id}-{run.job.lease}"
    written = await _write(run, export, name)
    try:
        await _complete(run, export, name, written)
    except (LeaseLostError, CancelRequestedError):
        await run.tools.files.delete([name])
        raise
    return None


async def _complete(run: Run, export: Export, name: str, written: Written) -> None:
    async with run.tools.database.sessions.begin() as session:
        result = await _result(session, run, export, written)
        await session.execute(update(Job).where(Job.id == run.job.id).values(files=[name]))
        await run.complete(session, result)


async def _result(session: AsyncSession, run: Run, export: Export, written: Written) -> Result:
    kept = timedelta(days=run.tools.settings.retention.jobs_days)
    expires_at = await session.scalar(select(func.now() + kept))
    media_type, ending = _PACKED.get(run.params["compression"], (export.media_type, ""))
    return {
        "rows": written.rows,
        "bytes": written.bytes,
        "sha256": written.digest.hexdigest(),
        "file": path_of(run.job.id),
        "filename": export.filename + ending,
        "media_type": media_type,
        "expires_at": expires_at.isoformat() if expires_at else None,
        "role": run.owner.role,
    }


async def _write(run: Run, export: Export, name: str) -> Written:
    """Write the file.

    Raises:
        JobRefused: It took longer than a snapshot may be held.

    """
    limit = asyncio.timeout(run.tools.settings.exports.max_minutes * 60)
    try:
        async with limit:
            try:
                return await _write_snapshot(run, export, name)
            except ReplicaFailedError:
                return await _write_snapshot(run, export, name, on_primary=True)
    except TimeoutError as error:
        if limit.expired():
            raise JobRefused(_TOO_LONG) from error
        raise


async def _write_snapshot(
    run: Run, export: Export, name: str, *, on_primary: bool = False
) -> Written:
    tools = run.tools
    async with _snapshot(tools.settings, tools.database.reads, on_primary=on_primary) as snapshot:
        total = await snapshot.value(export.count, export.values)
        run.progress("writing", 0, total)
        written = Written()
        async with aclosing(_chunks(run, snapshot, export, written)) as chunks:
            await tools.files.write(name, chunks)
        return written


@asynccontextmanager
async def _snapshot(
    settings: Settings, primary: ReadPool, *, on_primary: bool
) -> AsyncIterator[Snapshot]:
    """Open a snapshot whose statements may take as long as it is held itself."""
    seconds = settings.exports.max_minutes * 60
    patient = settings.database.model_copy(update={"statement_timeout_seconds": seconds})
    patiently = settings.model_copy(update={"database": patient})
    async with following(patiently, "pricebook-export-files", primary) as replica:
        pool = Snapshots(patiently, "pricebook-export-files", 1, replica)
        try:
            async with pool.snapshot(on_primary=on_primary) as snapshot:
                yield snapshot
        finally:
            pool.close()


async def _chunks(
    run: Run, snapshot: Snapshot, export: Export, written: Written
) -> AsyncGenerator[bytes, None]:
    """Yield the file, and keep count."""
    encoding = _ENCODINGS[run.params["compression"]]
    async for chunk in compressed(body(snapshot, export), encoding):
        written.bytes += len(chunk)
        written.digest.update(chunk)
        yield chunk
        run.progress("writing", snapshot.rows, run.total)
    written.rows = snapshot.rows
