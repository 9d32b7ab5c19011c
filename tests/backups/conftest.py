"""A price list with a row in every table, another cluster to restore it in, and what is in both."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from pydantic import SecretStr
from tests.conftest import alembic_config, asyncpg_url, connected

from pricebook.backups.making import back_up
from pricebook.backups.manifest import Manifest
from pricebook.core.embedded import Postgres
from pricebook.core.files import Files
from pricebook.core.settings import BackupSettings, FileSettings, Settings

ITEMS = 500
_USER = "'019b0000-0000-7000-8000-000000000001'"
SEED = f"""
INSERT INTO users (id, email, name, role, hashed_password) VALUES ({_USER}, 'a@x.y', 'A', 'admin', 'x');
INSERT INTO items (sku, name, price, currency, tags, description)
SELECT 'SKU-' || n, E'Ham\\tmer "' || n || '" \u00fc\U0001f528', n / 100.0, 'EUR', ARRAY['t' || n % 7, 'a,b'],
       CASE WHEN n % 3 = 0 THEN E'line\\nline' END FROM generate_series(1, {ITEMS}) n;
INSERT INTO events (type, subject_id, payload, expanded_at)
SELECT 'item.created', id, jsonb_build_object('sku', sku, 'tags', tags), now() FROM items;
INSERT INTO sessions (user_id, token_digest, credentials_epoch, address, expires_at)
VALUES ({_USER}, '\\x00ff', 1, '127.0.0.1', now() + interval '1 day');
INSERT INTO api_keys (user_id, token_digest, name, scopes) VALUES ({_USER}, '\\x01', 'Till', ARRAY['items:read']);
INSERT INTO known_networks (user_id, network) VALUES ({_USER}, '127.0.0.0/24');
INSERT INTO backfills (name, place, seen) VALUES ('items_colour', 'SKU-7', 7);
INSERT INTO failed_attempts VALUES ('\\x02', 3, now());
INSERT INTO idempotency_keys VALUES (uuidv7(), '\\x03', '\\x04', 201, '{{"a": "b"}}', '\\x05', now());
INSERT INTO one_time_tokens (token_digest, user_id, purpose, credentials_epoch, email, expires_at)
VALUES ('\\x06', {_USER}, 'verify_email', 1, 'a@x.y', now());
INSERT INTO webhook_endpoints (owner_id, url, sealed_secret) VALUES ({_USER}, 'https://x.y', '\\x07');
INSERT INTO webhook_messages (id, type, body) VALUES (uuidv7(), 'item.created', '{{}}');
INSERT INTO webhook_deliveries (endpoint_id, message_id, lease, leased_until)
SELECT e.id, m.id, 4, now() + interval '6 s' FROM webhook_endpoints e, webhook_messages m;
INSERT INTO webhook_attempts (delivery_id, started_at, duration_ms) SELECT id, now(), 5 FROM webhook_deliveries;
INSERT INTO item_watches (user_id, item_id) SELECT {_USER}, id FROM items LIMIT 3;
INSERT INTO tag_watches (user_id, tag) VALUES ({_USER}, 't1');
INSERT INTO notification_settings (user_id) VALUES ({_USER});
INSERT INTO mails (user_id, kind) VALUES ({_USER}, 'verify_email');
INSERT INTO notifications (user_id, kind, event_id, data, is_in_inbox)
VALUES ({_USER}, 'price', uuidv7(), '{{}}', true);
INSERT INTO jobs (kind, params, role, scope, rank_at, expected_seconds, is_told)
VALUES ('count', '{{"n": 1.50}}', 'viewer', 'items:read', now(), 0.1, false);
INSERT INTO job_log_lines (job_id, lease, number, text) SELECT id, 1, 1, 'begun' FROM jobs;
"""  # noqa: E501 -- a row a line, where it can be
_TABLES = """
SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY column_name) AS columns
FROM information_schema.columns WHERE table_schema = 'public' AND NOT (
    (table_name, column_name) IN (('events', 'transaction_id'), ('users', 'credentials_epoch')))
GROUP BY table_name
"""


async def hashes(url: str) -> dict[str, tuple[int, str]]:
    """Return the rows of every table, all columns of them, as a digest that is made otherwise.

    But for the two columns that are set anew: see `pricebook.backups.settling`.
    """
    async with connected(url) as connection:
        await connection.execute("SET TimeZone = 'UTC'")
        return {
            table: tuple(
                await connection.fetchrow(
                    f"SELECT count(*), md5(string_agg(one, ';' ORDER BY one)) "
                    f"FROM (SELECT ROW({columns})::text AS one FROM {table}) found"
                )
            )
            for table, columns in await connection.fetch(_TABLES)
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A cluster with a filled database, which is copied for each test."""
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o755)
    server = Postgres(folder, durable=False)
    server.start()
    server.create_database("filled")
    url = server.url_of("filled")
    command.upgrade(alembic_config(asyncpg_url(url)), "head")
    asyncio.run(_seed(url))
    yield server
    server.stop()


async def _seed(url: str) -> None:
    async with connected(url) as connection:
        await connection.execute(SEED)


@pytest.fixture
async def price_list(
    cluster: Postgres, settings: Settings, tmp_path: Path
) -> AsyncIterator[Settings]:
    """Settings that name a filled database, one file, and a place for backups."""
    cluster.create_database("price_list", template="filled")
    own = settings.model_copy(
        update={
            "database_url": SecretStr(asyncpg_url(cluster.url_of("price_list"))),
            "files": FileSettings(url=(tmp_path / "files").as_uri()),
            "backup": BackupSettings(url=(tmp_path / "backups").as_uri()),
        }
    )
    await Files(own).write("exports/a.csv", blocks())
    yield own
    cluster.drop_database("price_list")


async def blocks() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"0123456789abcdef" * 65_536


@pytest.fixture
async def made(price_list: Settings) -> Manifest:
    return await back_up(price_list)


@pytest.fixture
def elsewhere(price_list: Settings, scratch: str, tmp_path: Path) -> Settings:
    """Settings that name an empty database of another cluster, and other files."""
    return price_list.model_copy(
        update={
            "database_url": SecretStr(asyncpg_url(scratch)),
            "files": FileSettings(url=(tmp_path / "files elsewhere").as_uri()),
        }
    )


def url_of(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value().replace("+asyncpg", "")


async def ask(settings: Settings, query: str) -> object:
    async with connected(url_of(settings)) as connection:
        try:
            return await connection.fetchval(query)
        except asyncpg.UndefinedTableError:
            return None
