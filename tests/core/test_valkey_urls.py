"""How a Valkey behind Sentinel is named, and what is refused with a sentence that helps."""

import pytest
from pydantic import SecretStr, ValidationError

from pricebook.core.settings import Settings
from pricebook.core.valkey_urls import read_sentinel_url

HOSTS = "one:26379,two:26380"


def test_a_url_names_hosts_service_database_and_both_passwords():
    url = f"rediss+sentinel://app:p%40ss@{HOSTS}/prices/3?sentinel_password=watch"
    read = read_sentinel_url(url)
    assert read.hosts == [("one", 26379), ("two", 26380)]
    assert (read.service, read.database, read.has_tls) == ("prices", 3, True)
    assert (read.username, read.password) == ("app", "p@ss")
    assert (read.sentinel_username, read.sentinel_password) == (None, "watch")


def test_ports_database_and_passwords_may_be_left_out():
    read = read_sentinel_url("redis+sentinel://one,[::1]:5000/prices")
    assert read.hosts == [("one", 26379), ("::1", 5000)]
    assert (read.database, read.password, read.has_tls) == (0, None, False)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "one",
        "one/",
        "one:port/prices",
        "one/prices/zero",
        ",/prices",
        "one/prices/0?unknown=1",
        "u:pass/word@one/prices",
    ],
)
def test_what_is_not_understood_is_refused_and_not_repeated(rest):
    url = f"redis+sentinel://{rest}"
    with pytest.raises(ValidationError, match=r"must look like redis\+sentinel://") as refusal:
        Settings(database_url=SecretStr("postgresql://h/d"), redis_url=SecretStr(url))
    assert "pass/word" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster", "redis-cluster"])
def test_a_cluster_is_refused_with_what_to_use_instead(scheme):
    url = SecretStr(f"{scheme}://one:6379,two:6379")
    with pytest.raises(ValidationError, match=r"must not be a cluster.* or Sentinels"):
        Settings(database_url=SecretStr("postgresql://h/d"), redis_url=url)
