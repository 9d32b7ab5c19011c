"""However the hosts of a database are given, they are the same ones."""

import pytest

from pricebook.core.database_urls import each_host, normal_url

TWO = "postgresql+asyncpg://u:p%2Cw@one:5432,two:5433/d"


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u:p%2Cw@one:5432,two:5433/d",
        "postgres://u:p%2Cw@/d?host=one:5432&host=two:5433",
        "postgresql://u:p%2Cw@/d?host=one,two&port=5432,5433",
    ],
)
def test_hosts_may_be_given_in_any_usual_way(given):
    assert normal_url(given) == TWO
    assert each_host(TWO) == [f"postgresql://u:p%2Cw@{at}/d" for at in ("one:5432", "two:5433")]


def test_what_is_said_beside_them_is_kept():
    assert normal_url("postgresql://u@/d?host=/run/pg") == (
        "postgresql+asyncpg://u@/d?host=/run/pg"
    )
    assert normal_url("postgresql://u@h/d?ssl=require&target_session_attrs=read-write") == (
        "postgresql+asyncpg://u@h/d?sslmode=require&target_session_attrs=primary"
    )


@pytest.mark.parametrize("given", ["u@h/d?host=a,b", "u@/d?host=a,b,c&port=1,2"])
def test_hosts_given_twice_or_ports_not_for_all_are_refused(given):
    with pytest.raises(ValueError, match="must"):
        normal_url(f"postgresql://{given}")
