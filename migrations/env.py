"""How Alembic reaches the database: async, in one transaction, never waiting long for a lock."""

import asyncio
from logging.config import fileConfig
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from pricebook.core.database import lone_engine
from pricebook.core.database_urls import normal_url
from pricebook.core.schema_head import directly
from pricebook.core.settings import Settings
from pricebook.tables import metadata

config = context.config
if config.config_file_name is not None and not config.attributes.get("quiet"):
    fileConfig(config.config_file_name, disable_existing_loggers=False)

# Whoever wants a table after us waits behind us: better to give up soon, and to try again.
LOCK_TIMEOUT = "1s"
LONGEST = "10min"

OPTIONS: dict[str, Any] = {
    "target_metadata": metadata,
    "compare_server_default": True,
    "transaction_per_migration": True,
    # CHECK constraints are compared too, by name.
    "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
}


def database_url() -> str:
    """Return the URL that the caller gave, or the one in the settings."""
    if given := config.attributes.get("url"):
        return str(given)
    url = directly(Settings()).database_url
    if url is None:
        message = "set PRICEBOOK_DATABASE_URL to the database to migrate"
        raise SystemExit(message)
    return url.get_secret_value()


def run_offline() -> None:
    """Write SQL instead of running it."""
    context.configure(dialect_name="postgresql", literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'; SET statement_timeout = '{LONGEST}'")
        context.run_migrations()


def run(connection: Connection) -> None:
    """Migrate over one connection."""
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{LONGEST}'"))
    connection.commit()
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Migrate the database."""
    engine = lone_engine(normal_url(database_url()))
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
elif (given_connection := config.attributes.get("connection")) is not None:
    run(given_connection)
else:
    asyncio.run(run_online())
