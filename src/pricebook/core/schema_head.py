"""The database's schema: which head it has, and which one this code needs."""

from functools import cache
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from pricebook.core.mendable import MendableError
from pricebook.core.primary import primary_at
from pricebook.core.settings import Settings

_CONNECT_SECONDS = 5.0


class SchemaError(MendableError):
    """The schema is not the one that this code needs."""


class DatabaseAwayError(MendableError):
    """The database cannot be asked."""


@cache
def needed_head() -> str | None:
    """Return the newest revision of the migrations."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


@cache
def revisions() -> frozenset[str]:
    """Return every revision that this code knows."""
    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


async def current_head(settings: Settings) -> str | None:
    """Ask the database for its revision; None if it has never been migrated.

    Raises:
        DatabaseAwayError: It cannot be reached, or refuses.

    """
    connection = await connect(settings)
    try:
        head: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    else:
        return head
    finally:
        await connection.close()


async def connect(settings: Settings) -> asyncpg.Connection:
    """Connect once, outside the pools.

    Raises:
        DatabaseAwayError: It cannot be reached, or refuses.

    """
    primary = primary_at(database_url(settings), is_pooled=settings.database.is_pooled)
    try:
        return await primary.connect(timeout=_CONNECT_SECONDS)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        message = f"{error}: correct user and password in PRICEBOOK_DATABASE_URL"
        raise DatabaseAwayError(message) from error
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        message = f"{error or 'no answer'}: start PostgreSQL, or correct PRICEBOOK_DATABASE_URL"
        raise DatabaseAwayError(message) from error


def directly(settings: Settings) -> Settings:
    """Return the settings that lead to PostgreSQL itself, for what a pooler cannot carry.

    That is whatever needs a session: an advisory lock or a setting that outlives a transaction.

    Raises:
        DatabaseAwayError: There is a pooler, and no way past it is known.

    """
    if settings.database_direct_url is None:
        if not settings.database.is_pooled:
            return settings
        message = "this cannot go through a pooler: set PRICEBOOK_DATABASE_DIRECT_URL, too"
        raise DatabaseAwayError(message)
    unpooled = settings.database.model_copy(update={"pooler": "none"})
    return settings.model_copy(
        update={"database_url": settings.database_direct_url, "database": unpooled}
    )


def write_revision(settings: Settings, message: str) -> None:
    """Write a migration from what the models say and the database does not have."""
    config = Config("alembic.ini", toml_file="pyproject.toml")
    config.attributes.update(url=database_url(directly(settings)), quiet=True)
    command.revision(config, message, autogenerate=True)


async def check_schema(settings: Settings) -> None:
    """Make sure that database and code fit together.

    Raises:
        SchemaError: They do not.
        DatabaseAwayError: It cannot be reached, or refuses.

    """
    current, needed = await current_head(settings), needed_head()
    if current == needed:
        return
    if current is None:
        message = "the database has no tables yet: run `pricebook migrate`"
    elif current in revisions():
        message = f"the schema is at {current}, not at {needed}: run `pricebook migrate`"
    elif settings.database.may_be_newer:
        return
    else:
        message = (
            f"the schema is at {current}, which this Pricebook does not know: run the newer "
            "Pricebook that made it, or set PRICEBOOK_DATABASE__MAY_BE_NEWER=true to go back"
        )
    raise SchemaError(message)


def alembic_config() -> Config:
    """Return what Alembic needs to find the revisions."""
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.attributes["quiet"] = True
    return config


def _migrations() -> Path:
    """Find the migrations: inside an installed Pricebook, at the top of its sources."""
    code = Path(__file__)
    for root in (code.parents[1], code.parents[3]):
        if (root / "migrations" / "env.py").exists():
            return root / "migrations"
    message = "Pricebook is not installed whole, its migrations are missing: install it again"
    raise SchemaError(message)


def database_url(settings: Settings) -> str:
    """Return the URL of the database, spelled out.

    Raises:
        DatabaseAwayError: The settings name none.

    """
    if settings.database_url is None:
        message = (
            "no database to talk to: set PRICEBOOK_DATABASE_URL and PRICEBOOK_REDIS_URL, "
            "or start `pricebook up` first"
        )
        raise DatabaseAwayError(message)
    return settings.database_url.get_secret_value()
