"""The commands that change the database's schema, and the servers that commands work on."""

import asyncio
from typing import Annotated

import typer

from pricebook.core.settings import Settings, load_settings


def migrate(
    *,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what would be done, and do nothing; 2 if there is any."),
    ] = False,
    to: Annotated[
        str, typer.Option(metavar="REVISION", help="How far; else as far as this version needs.")
    ] = "head",
    allow_contract: Annotated[
        bool,
        typer.Option(
            "--allow-contract", help="Take away, too, what the version before may still use."
        ),
    ] = False,
) -> None:
    """Bring the database to the schema that this version needs."""
    from pricebook.core import migrating

    settings = settings_with_servers()
    if plan:
        if migrating.show_plan(settings, typer.echo, to=to):
            raise typer.Exit(2)
        return
    migrating.migrate(settings, typer.echo, to=to, allow_contract=allow_contract)


def backfill(
    name: Annotated[str | None, typer.Argument(help="Which; without it, tell of all.")] = None,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Go through all rows once more, though it has finished.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Tell how far it is, to its end; 1 if it breaks off.")
    ] = False,
) -> None:
    """Have the worker fill in, row by row, what a migration left to be filled in."""
    from pricebook import backfills
    from pricebook.core.schema_head import check_schema

    settings = settings_with_servers()
    asyncio.run(check_schema(settings))
    if name is None:
        asyncio.run(backfills.tell_of_all(settings, typer.echo))
    elif not asyncio.run(backfills.run(settings, name, typer.echo, again=again, wait=wait)):
        raise typer.Exit(1)


def revision(message: str) -> None:
    """Write a migration that takes the running database to what the models say."""
    from pricebook.core import schema_head

    schema_head.write_revision(settings_with_servers(), message)


def settings_with_servers() -> Settings:
    """Return the settings, with the servers of the `up` that runs if they name no others."""
    from pricebook.up import with_running_servers

    return with_running_servers(load_settings())
