"""`pricebook import`: a file into the list, and what became of each of its rows."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import typer
import zstandard

from pricebook.commands.client import Access, ApiRefusedError, Client, open_client
from pricebook.commands.following import Job, is_over, states
from pricebook.commands.progress_bar import Bar, progress_bar
from pricebook.commands.report import print_report
from pricebook.core.mendable import MendableError

_STDIN = Path("-")
_CHUNK_BYTES = 512 * 1024
_LONGEST_NAME = 200
_ANSWER_SECONDS = 5.0
# RFC 1952, section 2.3.1; RFC 8878, section 3.1.1.
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Sent:
    """What is to be imported, and where its refused rows go; without a path, beside it."""

    path: Path
    query: list[tuple[str, str]]
    errors_path: Path | None


async def import_file(access: Access, sent: Sent) -> bool:
    """Import a file, tell what became of it, and return whether all of it went well."""
    with _reading(sent.path) as file:
        async with open_client(access) as client:
            with progress_bar() as bar:
                job = await _job_of(client, sent, file, bar)
                job = await _follow(client, job["id"], bar)
            errors_path = await _save_errors(client, job, sent)
    print_report(job, errors_path)
    return job["status"] == "succeeded" and not job["result"]["refused"]


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise MendableError(message) from error
    with file:
        yield file


async def _job_of(client: Client, sent: Sent, file: BinaryIO, bar: Bar) -> Job:
    """Upload, and return the job. Ctrl-C breaks that off; once all is sent it cancels the job."""
    is_sent = asyncio.Event()
    uploading = asyncio.create_task(_upload(client, sent, file, bar, is_sent.set))
    try:
        return await asyncio.shield(uploading)
    except asyncio.CancelledError:
        if is_sent.is_set():
            return await _cancelled(client, (await uploading)["id"], bar)
        uploading.cancel()
        raise


async def _upload(
    client: Client, sent: Sent, file: BinaryIO, bar: Bar, on_end: Callable[[], None]
) -> Job:
    """Send the file as it is read. The API is asked first whether it wants it at all."""
    size = sent.path.stat().st_size if sent.path != _STDIN else None

    def show(done: int) -> None:
        bar.show("Uploading", done, size)

    post = partial(
        client.post,
        "/imports/items",
        params=_query(sent),
        headers={"Content-Type": "application/octet-stream"},
    )
    job: Job
    try:
        async with asyncio.timeout(_ANSWER_SECONDS) as limit:
            body = _packed(file, show, on_end, on_begin=lambda: limit.reschedule(None))
            job = await post(data=body, expect100=True)
    except TimeoutError:
        # Whatever is on the way does not pass the question on (RFC 9110, section 10.1.1).
        job = await post(data=_packed(file, show, on_end))
    return job


def _query(sent: Sent) -> list[tuple[str, str]]:
    named = [] if sent.path == _STDIN else [("name", sent.path.name[:_LONGEST_NAME])]
    return [*sent.query, ("notify", "false"), *named]


async def _packed(
    file: BinaryIO,
    show: Callable[[int], None],
    on_end: Callable[[], None],
    on_begin: Callable[[], None] = lambda: None,
) -> AsyncIterator[bytes]:
    """Yield the file compressed, unless it is already."""
    on_begin()
    compressor = zstandard.ZstdCompressor().compressobj()
    done = 0
    chunk = await asyncio.to_thread(file.read, _CHUNK_BYTES)
    is_packed = chunk.startswith(_PACKED)
    while chunk:
        if part := chunk if is_packed else await asyncio.to_thread(compressor.compress, chunk):
            yield part
        done += len(chunk)
        show(done)
        chunk = await asyncio.to_thread(file.read, _CHUNK_BYTES)
    if not is_packed:
        yield compressor.flush()
    on_end()


async def _follow(client: Client, job_id: str, bar: Bar) -> Job:
    """Wait for the end. Ctrl-C cancels the job, if that still can be."""
    try:
        return await _last_state(client, job_id, bar)
    except asyncio.CancelledError:
        return await _cancelled(client, job_id, bar)


async def _cancelled(client: Client, job_id: str, bar: Bar) -> Job:
    """Cancel the job, and break off; return it if it came to its end all the same."""
    with suppress(ApiRefusedError):  # it is over
        await client.post(f"/jobs/{job_id}/cancel")
    job = await _last_state(client, job_id, bar)
    if job["status"] != "cancelled":
        return job
    typer.echo("Cancelled: nothing was changed.", err=True)
    raise asyncio.CancelledError


async def _last_state(client: Client, job_id: str, bar: Bar) -> Job:
    async with aclosing(states(client, job_id)) as seen:
        async for job in seen:
            bar.show((job["phase"] or job["status"]).capitalize(), job["done"], job["total"])
    assert is_over(job)  # noqa: S101 -- the states go to the end
    return job


async def _save_errors(client: Client, job: Job, sent: Sent) -> Path | None:
    """Save the refused rows, each with its reason, and return where they are."""
    path = sent.errors_path
    if path is None and sent.path != _STDIN:
        path = sent.path.with_name(f"{sent.path.name}.errors.csv")
    if path is None or not (job["result"] or {}).get("has_errors_csv"):
        return None
    try:
        with path.open("wb") as file:
            async with client.request("GET", f"/imports/{job['id']}/errors.csv") as reply:
                async for chunk in reply.content.iter_any():
                    file.write(chunk)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise MendableError(message) from error
    return path
