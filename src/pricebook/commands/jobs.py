"""`pricebook jobs`: what a person asks of jobs, through the API."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pricebook.commands.client import Access, ApiAwayError, Client, Params, open_client
from pricebook.commands.following import Job, is_over, states
from pricebook.commands.progress_bar import progress_bar

# Wide enough for a log, which has no width of its own.
_WIDTH_OF_A_LOG = 140
_PAUSE_SECONDS = 0.5
_COLUMNS = ("id", "kind", "status", "how far", "asked for")


async def list_jobs(access: Access, query: Params) -> None:
    """Print one page of jobs."""
    async with open_client(access) as client:
        page = await client.get("/jobs", params=query)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name == "id")
    for job in page["items"]:
        cells = (job["id"], job["kind"], job["status"], _how_far(job), job["created_at"])
        table.add_row(*map(_shown, cells))
    _console().print(table)
    if page["next_cursor"]:
        typer.echo("There are more: see --limit, --status and --kind.", err=True)


async def show(access: Access, job_id: UUID) -> None:
    """Print all that there is to know about a job."""
    async with open_client(access) as client:
        job: Job = await client.get(f"/jobs/{job_id}")
    table = Table.grid(padding=(0, 2))
    for name, text in _facts(job):
        table.add_row(name, _shown(text))
    _console().print(table)
    if job["result"] is not None:
        typer.echo(json.dumps(job["result"], indent=2))


async def watch(access: Access, job_id: UUID) -> bool:
    """Show how far a job is until it ends; say how, and return whether it succeeded."""
    async with open_client(access) as client:
        with progress_bar() as bar:
            async with aclosing(states(client, str(job_id))) as seen:
                async for job in seen:
                    words = (job["phase"] or job["status"]).capitalize()
                    bar.show(words, job["done"], job["total"])
    typer.echo(_conclusion(job))
    return bool(job["status"] == "succeeded")


async def print_log(access: Access, job_id: UUID, *, is_followed: bool) -> None:
    """Print a job's log, to its end or to the end of the job."""
    async with open_client(access) as client:
        log = _Log(client, job_id)
        is_last = False
        while not is_last:
            is_last = not is_followed or is_over(await client.get(f"/jobs/{job_id}"))
            try:
                await log.print_on(is_followed=not is_last)
            except ApiAwayError:
                # It fell silent, say, as the job did; should the API be away, it is said next.
                is_last = False
                await asyncio.sleep(_PAUSE_SECONDS)


class _Log:
    """A log that is printed piece by piece, since a stream ends by its age as well."""

    def __init__(self, client: Client, job_id: UUID) -> None:
        self._client = client
        self._path = f"/jobs/{job_id}/log"
        self._printed = 0

    async def print_on(self, *, is_followed: bool) -> None:
        """Print the lines that were not printed yet."""
        count = 0
        params = {"follow": "true" if is_followed else "false"}
        async with self._client.request("GET", self._path, params=params) as reply:
            async for line in reply.content:
                count += 1
                if count > self._printed:
                    typer.echo(_shown(line.decode().rstrip("\n")).plain)
                    self._printed = count


async def cancel(access: Access, job_id: UUID) -> None:
    """Cancel a job, and say what comes of it."""
    async with open_client(access) as client:
        job = await client.post(f"/jobs/{job_id}/cancel")
    typer.echo("Cancelled." if is_over(job) else "It runs, and is asked to stop.")


async def retry(access: Access, job_id: UUID) -> None:
    """Queue a job again, and say how to follow it."""
    async with open_client(access) as client:
        await client.post(f"/jobs/{job_id}/retry")
    typer.echo(f"It is queued again: see `pricebook jobs watch {job_id}`.")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_LOG
    return console


def _how_far(job: Job) -> str:
    """Say how far a job is, if it is under way."""
    if job["phase"] is None:
        return ""
    if job["total"]:
        return f"{job['phase']}, {job['done'] / job['total']:.0%}"
    return f"{job['phase']}, {job['done']:,}" if job["done"] else str(job["phase"])


def _facts(job: Job) -> Iterator[tuple[str, str]]:
    yield "job", job["id"]
    yield "kind", job["kind"]
    yield "status", job["status"]
    known: dict[str, Any] = {
        "how far": _how_far(job),
        "done": f"{job['done']:,}" if job["done"] else None,
        "rate": f"{job['rate']:,.0f}/s" if job["rate"] else None,
        "attempts": f"{job['attempts']}",
        "asked for": job["created_at"],
        "asked to stop": job["cancel_requested_at"],
        "started": job["started_at"],
        "ended": job["finished_at"],
        "error": job["error"],
    }
    yield from ((name, text) for name, text in known.items() if text)


def _conclusion(job: Job) -> str:
    if job["status"] == "failed":
        return f"Failed: {_shown(job['error'] or '').plain}"
    return f"{job['status'].capitalize()}."


def _shown(text: str) -> Text:
    """Leave out what a terminal would obey."""
    return Text("".join(letter if letter.isprintable() else "·" for letter in text))
