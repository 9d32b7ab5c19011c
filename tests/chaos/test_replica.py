"""Thousands of writes that are read at once, while processes die and Valkey forgets."""

import pytest
from tests.replica.conftest import (
    _database,
    _standby,
    both,
    primary,
    primary_database,
    standby,
    tokens,
)
from tests.replica.test_read_your_writes import start, two, valkey, work

__all__ = [
    "_database",
    "_standby",
    "both",
    "primary",
    "primary_database",
    "standby",
    "start",
    "tokens",
    "two",
    "valkey",
]


@pytest.mark.chaos
async def test_no_writer_reads_what_was_while_processes_die(two, standby):
    found = await work(two, standby, seconds=60, every=7, least=2_000)
    assert found.pairs >= 2_000
    assert found.share > 0.3
