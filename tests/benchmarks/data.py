"""The data: items of about 250 bytes of CSV, and the people who ask for them."""

import asyncpg
from pydantic import SecretStr

from pricebook.core.database import open_database
from pricebook.core.security import PasswordHasher
from pricebook.core.settings import Settings
from pricebook.users.models import User

EMAIL = "benchmark@example.com"
PASSWORD = "correct horse battery staple"

# Rows that PostgreSQL makes by itself arrive as fast as by COPY, and need no file.
_MAKE_ITEMS = """
    INSERT INTO items (sku, name, description, price, currency, tags, cost, notes)
    SELECT
        'SKU-' || lpad(number::text, 8, '0'),
        (ARRAY['Hammer', 'Angle grinder', 'Spirit level', 'Wood screw'])[1 + number % 4]
            || ' ' || number % 977,
        'Forged steel, hardened twice, with a handle of ash that stays in the hand when it is wet.'
            || ' Lot ' || number % 7919,
        (number % 100000)::numeric / 100 + 0.5,
        (ARRAY['EUR', 'USD', 'CHF'])[1 + number % 3],
        ARRAY['tools', 'trade-' || number % 50],
        (number % 100000)::numeric / 200,
        'Reorder at ' || number % 100
    FROM generate_series(1, $1) AS number
"""


async def load(settings: Settings, items: int) -> list[str]:
    """Fill the table, and return the ids of some items in no order."""
    assert settings.database_url
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_MAKE_ITEMS, items)
        await connection.execute("VACUUM ANALYZE items")
        rows = await connection.fetch("SELECT id FROM items ORDER BY random() LIMIT 5000")
    finally:
        await connection.close()
    return [str(row["id"]) for row in rows]


async def make_editor(settings: Settings) -> None:
    """Make the person who asks; the role that sees every column."""
    async with open_database(settings, "benchmark") as database:
        hasher = PasswordHasher(settings.auth)
        hashed = await hasher.hash(SecretStr(PASSWORD))
        async with database.sessions.begin() as session:
            session.add(User(email=EMAIL, name="Benchmark", role="editor", hashed_password=hashed))
        hasher.close()
