"""`pricebook jobs …`: each command is a door, as in `cli`."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from pricebook.commands.options import Url

app = typer.Typer(help="Long work: how far it is, and what has become of it.")

JobId = Annotated[UUID, typer.Argument(metavar="ID", help="As `pricebook jobs list` shows it.")]


@app.command("list")
def list_(
    *,
    status: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only these."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only these, such as import_items.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    url: Url = None,
) -> None:
    """List your jobs, newest first; admins see all."""
    from pricebook.commands import jobs as command
    from pricebook.commands.client import query_of

    query = query_of({"status": status, "kind": kind, "limit": str(limit)})
    _run(lambda access: command.list_jobs(access, query), url)


@app.command()
def show(job_id: JobId, *, url: Url = None) -> None:
    """Show a job, and what it found."""
    from pricebook.commands import jobs as command

    _run(lambda access: command.show(access, job_id), url)


@app.command()
def watch(job_id: JobId, *, url: Url = None) -> None:
    """Watch a job to its end. Ctrl-C ends the watching, not the job; 1 if it does not succeed."""
    from pricebook.commands import jobs as command

    if not _run(lambda access: command.watch(access, job_id), url):
        raise typer.Exit(1)


@app.command()
def log(
    job_id: JobId,
    *,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="End with what is there by now.")
    ] = False,
    url: Url = None,
) -> None:
    """Print what a job says, as it says it."""
    from pricebook.commands import jobs as command

    _run(lambda access: command.print_log(access, job_id, is_followed=not no_follow), url)


@app.command()
def cancel(job_id: JobId, *, url: Url = None) -> None:
    """Cancel a job; nothing of it stays."""
    from pricebook.commands import jobs as command

    _run(lambda access: command.cancel(access, job_id), url)


@app.command()
def retry(job_id: JobId, *, url: Url = None) -> None:
    """Do a job again that failed or was cancelled, from its beginning."""
    from pricebook.commands import jobs as command

    _run(lambda access: command.retry(access, job_id), url)


def _run(do: Callable[[Any], Coroutine[Any, Any, Any]], url: str | None) -> Any:  # noqa: ANN401 -- what `do` returns
    from pricebook.commands.client import find_access
    from pricebook.core.settings import load_settings

    return asyncio.run(do(find_access(load_settings(), url)))
