"""The commands about backups: make one, list them, restore one."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from pricebook.core.mendable import MendableError
from pricebook.core.settings import Settings, load_settings

_Name = Annotated[
    str | None, typer.Argument(metavar="NAME", help="As `pricebook backups` lists it.")
]


def backup() -> None:
    """Back up the database and the files, and read them back; old backups are deleted."""
    from pricebook.backups.making import back_up

    with _settings_with_database() as settings:
        _run(back_up(settings, typer.echo))


def backups() -> None:
    """List the backups that are whole, the newest last."""
    from pricebook.backups.making import in_words
    from pricebook.backups.shelf import Shelf

    async def show() -> None:
        shelf = Shelf(load_settings())
        for name in await shelf.names():
            found = await shelf.find(name)
            items = found.tables["items"].rows
            typer.echo(
                f"{name}  {found.began_at:%Y-%m-%d %H:%M} UTC  {items:>11,} items  "
                f"{len(found.files):>5} files  {in_words(found.size):>11}  schema {found.head}"
            )

    _run(show())


def restore(
    name: _Name = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Read all of it, and touch nothing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop what is in the database first.")
    ] = False,
    keep_sessions: Annotated[
        bool,
        typer.Option(
            "--keep-sessions", help="Leave log-ins good: none was ended since the backup."
        ),
    ] = False,
) -> None:
    """Restore a backup, the newest unless named, into an empty database."""
    from pricebook.backups import restoring

    if check:
        _run(restoring.check(load_settings(), name, typer.echo))
        return
    consent = restoring.Consent(replaces=replace, keeps_sessions=keep_sessions)
    with _settings_with_database() as settings:
        _run(restoring.restore(settings, name, consent, typer.echo))


@contextmanager
def _settings_with_database() -> Iterator[Settings]:
    """Name the database of the settings, or of the `up` that runs, or start that of the folder."""
    from pricebook.core.schema_head import directly
    from pricebook.up import database_alone, with_running_servers

    settings = with_running_servers(load_settings())
    if settings.is_embedded:
        with database_alone(settings) as alone:
            yield alone
    else:
        yield directly(settings)


def _run(work: Coroutine[Any, Any, object]) -> None:
    """Run it to its end; to be stopped is to break off in good order."""
    from pricebook.core.files import FileMissingError, FilesAwayError

    # What is written holds every secret of the database.
    os.umask(0o077)

    async def stoppable() -> None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await task

    try:
        asyncio.run(stoppable())
    except (FilesAwayError, FileMissingError) as error:
        reason = str(error.__cause__).partition("\n")[0]
        message = f"{reason}: mend that, or correct PRICEBOOK_BACKUP__URL or PRICEBOOK_FILES__URL"
        raise MendableError(message) from error
    except asyncio.CancelledError:
        typer.echo("pricebook: broken off; nothing that is there now counts", err=True)
        raise typer.Exit(1) from None
