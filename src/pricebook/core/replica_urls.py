"""The hosts that `PRICEBOOK_DATABASE_REPLICA_URL` names, each by itself.

One connection of several hosts would be to whichever answers, and what is known of one replica says
nothing of another.
"""

from pricebook.core.database import asyncpg_url
from pricebook.core.settings import Settings


def replica_urls(settings: Settings) -> list[str]:
    """Return a URL, as asyncpg takes it, for each host that the setting names."""
    if settings.database_replica_url is None:
        return []
    primary = settings.model_copy(update={"database_url": settings.database_replica_url})
    scheme, _, rest = asyncpg_url(primary).partition("://")
    place, slash, path = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    return [f"{scheme}://{user}{at}{host}{slash}{path}" for host in hosts.split(",")]
