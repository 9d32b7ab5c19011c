"""The data: items of about 250 bytes of CSV, and the people who ask for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pydantic import SecretStr

from pricebook.core.database import open_database
from pricebook.core.database_urls import each_host
from pricebook.core.schema_head import database_url
from pricebook.core.security import PasswordHasher
from pricebook.core.settings import Settings
from pricebook.users.models import User

EMAIL = "benchmark@example.com"
PASSWORD = "correct horse battery staple"

COLUMNS = "sku, name, description, price, currency, tags, cost, notes"

# PostgreSQL makes the rows by itself.
ROWS = """
    SELECT
        'SKU-' || lpad(number::text, 8, '0') AS sku,
        (ARRAY['Hammer', 'Angle grinder', 'Spirit level', 'Wood screw'])[1 + number % 4]
            || ' ' || number % 977 AS name,
        'Forged steel, hardened twice, with a handle of ash that stays in the hand when it is wet.'
            || ' Lot ' || number % 7919 AS description,
        (number % 100000 / 100.0 + 0.5)::numeric(14, 4) AS price,
        (ARRAY['EUR', 'USD', 'CHF'])[1 + number % 3] AS currency,
        ARRAY['tools', 'trade-' || number % 50] AS tags,
        (number % 100000 / 200.0)::numeric(14, 4) AS cost,
        'Reorder at ' || number % 100 AS notes
    FROM generate_series(1, {rows}) AS number
"""


async def load(settings: Settings, items: int) -> list[str]:
    """Fill the table anew, and return the ids of some items in no order."""
    async with connected(settings) as connection:
        await connection.execute("TRUNCATE items CASCADE")
        # Half of the time goes into this index, unless it is made afterwards.
        index = await connection.fetchval(
            "SELECT pg_get_indexdef('ix_items_search_text'::regclass)"
        )
        await connection.execute("DROP INDEX ix_items_search_text")
        await connection.execute(f"INSERT INTO items ({COLUMNS}) {ROWS.format(rows=items)}")
        await connection.execute(f"SET maintenance_work_mem = '256MB'; {index}")
        await connection.execute("VACUUM ANALYZE items")
        rows = await connection.fetch("SELECT id FROM items ORDER BY random() LIMIT 5000")
    return [str(row["id"]) for row in rows]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of its own."""
    connection = await asyncpg.connect(each_host(database_url(settings))[0])
    try:
        yield connection
    finally:
        await connection.close()


async def make_editor(settings: Settings) -> None:
    """Make the person who asks; the role that sees every column."""
    async with open_database(settings, "benchmark") as database:
        hasher = PasswordHasher(settings.auth)
        hashed = await hasher.hash(SecretStr(PASSWORD))
        async with database.sessions.begin() as session:
            session.add(User(email=EMAIL, name="Benchmark", role="editor", hashed_password=hashed))
        hasher.close()
