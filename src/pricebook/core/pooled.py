"""A connection through a pooler that lends a server's connection for one transaction at a time.

PgBouncer in transaction mode is one. What outlives a transaction there, the next who is lent the
server's connection gets, and we do not: no prepared statement has a name, no setting is made but
within the transaction that it is for, and each statement is in a transaction, as asyncpg sends it
in two steps that would go to two servers.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from pricebook.core.confirmed import Connection

# What a pooler itself keeps for each client; everything else it refuses from a client that comes.
_KEPT = {"application_name", "timezone"}
# What a session's default is called within a transaction.
_NAMES = {"default_transaction_read_only": "transaction_read_only"}


def kept_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what a pooler takes with the connection; the rest is for `settle`."""
    return {name: value for name, value in settings.items() if name in _KEPT}


class PooledConnection(Connection):
    """Like any other connection, but what it asks of the server it asks at each BEGIN."""

    __slots__ = ("_at_begin",)

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 -- asyncpg's own
        """Ask for nothing before `settle`."""
        super().__init__(*arguments, **options)
        self._at_begin = ""

    def settle(self, settings: Mapping[str, str]) -> None:
        """Ask for these settings, ours and of no one else, in each transaction."""
        self._at_begin = "".join(
            f"; SET LOCAL {_NAMES.get(name, name)} = '{value}'"
            for name, value in settings.items()
            if name not in _KEPT
        )

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109 -- asyncpg's own
        """Execute as asyncpg does; no round trip is added to a BEGIN."""
        if query.startswith("BEGIN"):
            query = query.rstrip("; ") + self._at_begin
        if arguments:
            return str(await self._within(super().execute, query, *arguments, timeout=timeout))
        return await super().execute(query, timeout=timeout)

    async def fetch(self, query: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:  # noqa: ANN401 -- likewise
        """Fetch as asyncpg does."""
        records: list[asyncpg.Record] = await self._within(
            super().fetch, query, *arguments, **options
        )
        return records

    async def fetchrow(self, query: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- likewise
        """Fetch as asyncpg does."""
        return await self._within(super().fetchrow, query, *arguments, **options)

    async def fetchval(self, query: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- likewise
        """Fetch as asyncpg does."""
        return await self._within(super().fetchval, query, *arguments, **options)

    async def set_type_codec(self, typename: str, **options: Any) -> None:  # noqa: ANN401 -- likewise
        """Ask the server what the type is, as asyncpg does."""
        await self._within(super().set_type_codec, typename, **options)

    async def _within(
        self,
        do: Callable[..., Awaitable[Any]],
        *arguments: Any,  # noqa: ANN401 -- likewise
        **options: Any,  # noqa: ANN401 -- likewise
    ) -> Any:  # noqa: ANN401 -- likewise
        """Do it in the transaction there is, or in one of its own."""
        if self.is_in_transaction():
            return await do(*arguments, **options)
        await self.execute("BEGIN")
        try:
            done = await do(*arguments, **options)
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        except BaseException:
            # Nobody knows how far it has come. A connection to a pooler is made anew in no time.
            self.terminate()
            raise
        await self.execute("COMMIT")
        return done
