"""Which schemas a version starts on."""

import pytest
from pydantic import SecretStr
from tests.conftest import asyncpg_url, connected

from pricebook.core.schema_head import SchemaError, check_schema
from pricebook.core.settings import DatabaseSettings, Settings


async def test_a_newer_schema_is_refused_unless_going_back_is_meant(
    settings: Settings, scratch: str
) -> None:
    async with connected(scratch) as connection:
        await connection.execute("CREATE TABLE alembic_version (version_num text)")
        await connection.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
    newer = settings.model_copy(update={"database_url": SecretStr(asyncpg_url(scratch))})
    with pytest.raises(SchemaError, match="PRICEBOOK_DATABASE__MAY_BE_NEWER=true to go back"):
        await check_schema(newer)
    await check_schema(newer.model_copy(update={"database": DatabaseSettings(may_be_newer=True)}))


async def test_an_older_schema_is_refused_whatever_is_meant(
    settings: Settings, scratch: str
) -> None:
    changes = {
        "database_url": SecretStr(asyncpg_url(scratch)),
        "database": DatabaseSettings(may_be_newer=True),
    }
    with pytest.raises(SchemaError, match="run `pricebook migrate`"):
        await check_schema(settings.model_copy(update=changes))
