"""One setting may name several replicas; each is known by itself."""

import pytest
from pydantic import SecretStr, ValidationError

from pricebook.core.replica_urls import replica_urls
from pricebook.core.settings import Settings

SERVERS = {"database_url": "postgresql://p@one/x", "redis_url": "redis://v"}


def test_each_host_has_a_url_of_its_own():
    url = "postgresql://u:p%2Cw@one:5433,two,[::1]:5434/prices?ssl=require"
    settings = Settings(**SERVERS, database_replica_url=SecretStr(url))
    assert replica_urls(settings) == [
        f"postgresql://u:p%2Cw@{host}/prices?sslmode=require"
        for host in ("one:5433", "two", "[::1]:5434")
    ]
    assert replica_urls(Settings(**SERVERS)) == []


def test_a_replica_needs_a_primary_and_its_password_is_not_shown():
    with pytest.raises(ValidationError, match="needs PRICEBOOK_DATABASE_URL") as refused:
        Settings(database_replica_url=SecretStr("postgresql://u:hidden@one/x"))
    assert "hidden" not in str(refused.value)
    settings = Settings(**SERVERS, database_replica_url=SecretStr("postgresql://u:hidden@one/x"))
    assert "hidden" not in repr(settings)
