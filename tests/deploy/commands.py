"""What files that start Pricebook may say: commands and settings that there are."""

import re
from functools import cache

from typer.main import get_command

from pricebook.cli import app
from pricebook.core.settings import Settings
from pricebook.core.settings_example import settings_example


@cache
def verbs() -> frozenset[str]:
    return frozenset(get_command(app).commands)


@cache
def variables() -> frozenset[str]:
    return frozenset(re.findall(r"^#(PRICEBOOK_\w+)=", settings_example(), re.MULTILINE))


def connections_of(processes: int, workers: int) -> int:
    """The most connections to PostgreSQL of so many API and worker processes.

    A worker has the pools twice, for deliveries and for jobs, and one for the file of an export.
    """
    settings = Settings()
    pools = settings.database.pool_size + settings.database.read_pool_size
    return processes * (pools + settings.exports.at_once) + workers * (2 * pools + 1)
