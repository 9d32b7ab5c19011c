"""The hosts that `PRICEBOOK_DATABASE_REPLICA_URL` names, each by itself.

One connection of several hosts would be to whichever answers, and what is known of one replica says
nothing of another.
"""

from pricebook.core.database_urls import each_host
from pricebook.core.settings import Settings


def replica_urls(settings: Settings) -> list[str]:
    """Return a URL, as asyncpg takes it, for each host that the setting names."""
    if settings.database_replica_url is None:
        return []
    return each_host(settings.database_replica_url.get_secret_value())
