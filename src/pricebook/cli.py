"""The `pricebook` command: each command is a door, and pays only for what it opens."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from pydantic import SecretStr, ValidationError

from pricebook.backup_cli import backup, backups, restore
from pricebook.commands.jobs_cli import app as jobs
from pricebook.commands.options import Url
from pricebook.core.errors import PricebookError
from pricebook.core.mendable import MendableError
from pricebook.core.settings import Settings, load_settings
from pricebook.schema_cli import backfill, migrate, revision, settings_with_servers

Delimiter = Literal["comma", "semicolon", "tab"]


def _existing_file(path: Path) -> Path:
    if path != Path("-") and not path.is_file():
        message = f"there is no file {path}"
        raise typer.BadParameter(message)
    return path


app = typer.Typer(
    help="One price list that every shop, till, ERP and partner reads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(jobs, name="jobs", no_args_is_help=True)
app.command()(migrate)
app.command()(backfill)
app.command(hidden=True)(revision)
for _verb in (backup, backups, restore):
    app.command()(_verb)


@app.command()
def up(
    *, demo: Annotated[bool, typer.Option("--demo", help="Load a realistic price list.")] = False
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, API and worker, until Ctrl-C."""
    from pricebook import up as whole
    from pricebook.core.logging import configure_logging

    settings = load_settings()
    configure_logging(settings.log)
    whole.up(settings, with_demo=demo)


@app.command()
def serve() -> None:
    """Run the API; PRICEBOOK_PROCESSES processes share the port."""
    from pricebook import serving
    from pricebook.core.logging import configure_logging

    settings = _settings_of_a_ready_database()
    configure_logging(settings.log)
    serving.serve(settings)


@app.command()
def worker() -> None:
    """Run the worker."""
    _settings_of_a_ready_database()
    from pricebook import worker as process

    process.main()


@app.command()
def create_admin(
    email: Annotated[str, typer.Option(prompt="E-mail", help="The address to log in with.")],
    password: Annotated[
        str,
        typer.Option(
            envvar="PRICEBOOK_ADMIN_PASSWORD",
            prompt="Password",
            hide_input=True,
            confirmation_prompt=True,
            help="15 characters or more; better asked for than given here.",
        ),
    ],
) -> None:
    """Make a user with the role admin."""
    from pricebook.core.schema_head import check_schema
    from pricebook.prepare import make_admin

    settings = settings_with_servers()
    asyncio.run(check_schema(settings))
    if not asyncio.run(make_admin(settings, email, SecretStr(password))):
        typer.echo(f"There is an account for {email} already.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Made the admin {email}.")


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from pricebook.main import create_app

    typer.echo(json.dumps(create_app(load_settings()).openapi(), indent=2))


@app.command()
def doctor() -> None:
    """Look at all that Pricebook needs, and at what waits to be delivered, and say what to do."""
    from pricebook.doctor import examine

    async def report() -> bool:
        all_fine = True
        async for finding in examine(settings_with_servers()):
            all_fine &= finding.is_fine
            mark = "ok   " if finding.is_fine else "WRONG"
            typer.echo(f"{mark}  {finding.subject:<10} {finding.text}")
        return all_fine

    if not asyncio.run(report()):
        raise typer.Exit(1)


@app.command()
def export(  # noqa: PLR0913 -- each option is a parameter of the API
    resource: Annotated[Literal["items", "users"], typer.Argument(help="What.")] = "items",
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", dir_okay=False, help="The file; - is standard output."),
    ] = None,
    form: Annotated[
        Literal["csv", "jsonl"], typer.Option("--format", help="How it is written.")
    ] = "csv",
    fields: Annotated[str | None, typer.Option(help="Just these, such as sku,price.")] = None,
    q: Annotated[str | None, typer.Option(help="Words that all stand in it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Repeat it: all must be there.")] = None,
    currency: Annotated[str | None, typer.Option(help="Prices in this, such as EUR.")] = None,
    price_min: Annotated[str | None, typer.Option(help="Not below that.")] = None,
    price_max: Annotated[str | None, typer.Option(help="Not above that.")] = None,
    updated_since: Annotated[str | None, typer.Option(help="As 2026-11-22T00:00:00Z.")] = None,
    delimiter: Annotated[Delimiter | None, typer.Option(help="Between the cells of CSV.")] = None,
    bom: Annotated[bool, typer.Option("--bom", help="Begin as Excel likes UTF-8.")] = False,
    no_guard: Annotated[
        bool, typer.Option("--no-guard", help="Leave cells that begin a formula as they are.")
    ] = False,
    url: Url = None,
) -> None:
    """Write the list, or a part of it, to a file or to standard output.

    It asks as the key in PRICEBOOK_API_KEY, or for your address and password.
    """
    from pricebook.commands import exports as command
    from pricebook.commands.client import find_access, query_of

    asked = {
        "fields": fields,
        "q": q,
        "tag": tag,
        "currency": currency,
        "price_min": price_min,
        "price_max": price_max,
        "updated_since": updated_since,
        "delimiter": delimiter,
        "bom": "true" if bom else None,
        "guard": "false" if no_guard else None,
    }
    wanted = command.Wanted(resource, form, query_of(asked), output)
    asyncio.run(command.export(find_access(load_settings(), url), wanted))


@app.command("import")
def import_(  # noqa: PLR0913 -- each option is a parameter of the API
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", callback=_existing_file, help="The file; - is standard input."
        ),
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Take the good rows though others are refused.")
    ] = False,
    encoding: Annotated[
        Literal["auto", "utf-8", "utf-16", "windows-1252"] | None,
        typer.Option(help="What the file is written in."),
    ] = None,
    delimiter: Annotated[
        Literal["auto", "comma", "semicolon", "tab", "pipe"] | None,
        typer.Option(help="Between the cells."),
    ] = None,
    decimal: Annotated[
        Literal["point", "comma"] | None, typer.Option(help="What stands before the decimals.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="'THEIR NAME:FIELD'", help="Read a column as that.")
    ] = None,
    no_guard: Annotated[
        bool, typer.Option("--no-guard", help="Keep apostrophes before what could be a formula.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where refused rows go; else beside FILE.")
    ] = None,
    url: Url = None,
) -> None:
    """Bring the rows of a CSV file into the list, all of them or none.

    It asks as the key in PRICEBOOK_API_KEY, or for your address and password.

    It ends with 1 if a row was refused.
    """
    from pricebook.commands import imports as command
    from pricebook.commands.client import find_access, query_of

    asked = {
        "mode": "dry-run" if dry_run else "apply",
        "skip_refused": "true" if skip_refused else None,
        "encoding": encoding,
        "delimiter": delimiter,
        "decimal": decimal,
        "column": column,
        "guarded": "false" if no_guard else None,
    }
    sent = command.Sent(file, query_of(asked), errors)
    if not asyncio.run(command.import_file(find_access(load_settings(), url), sent)):
        raise typer.Exit(1)


@app.command(hidden=True)
def settings_example() -> None:
    """Print deploy/.env.example."""
    from pricebook.core.settings_example import settings_example as example

    typer.echo(example(), nl=False)


@app.command(hidden=True)
def events_page() -> None:
    """Print the README's page on events."""
    from pricebook.events_page import events_page as page

    typer.echo(page(), nl=False)


def _settings_of_a_ready_database() -> Settings:
    """Return the settings, once it is sure that database and code fit together."""
    from pricebook.core.schema_head import check_schema

    settings = load_settings()
    asyncio.run(check_schema(settings))
    return settings


def main() -> NoReturn:
    """Run the command line; what a person can mend is said in a line, without a traceback."""
    try:
        app()
    except (MendableError, PricebookError) as error:
        typer.echo(f"pricebook: {error}", err=True)
    except ValidationError as error:
        for problem in error.errors():
            name = "__".join(str(part) for part in problem["loc"]).upper()
            typer.echo(f"pricebook: PRICEBOOK_{name}: {problem['msg']}", err=True)
    sys.exit(1)


def run() -> NoReturn:
    """Run the command line, and end the process without taking the interpreter apart.

    Threads of the object store's library let go of Python's objects a moment after they have given
    an answer; if the interpreter is gone by then, they abort the process.
    """
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
