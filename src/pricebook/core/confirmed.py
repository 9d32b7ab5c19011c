"""A connection that takes a commit for done only if every server that has to hold it does."""

from typing import Any

import asyncpg


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Like asyncpg's, but a commit that no standby has confirmed fails.

    With synchronous replication, a commit waits for a standby. Whoever cancels that wait, an
    operator or a shutdown, leaves the transaction committed on the primary alone: PostgreSQL warns
    of it, and calls it a success. A failover would lose it.
    """

    __slots__ = ("_is_unconfirmed",)

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 -- asyncpg's own
        """Listen to what the server has to say beside its answers."""
        super().__init__(*arguments, **options)
        self._is_unconfirmed = False
        self.add_log_listener(_note)

    def doubt(self) -> None:
        """Let the statement that is under way fail."""
        self._is_unconfirmed = True

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109 -- asyncpg's own
        """Execute as asyncpg does.

        Raises:
            StatementCompletionUnknownError: It is committed, but may get lost in a failover.

        """
        status: str = await super().execute(query, *arguments, timeout=timeout)
        if self._is_unconfirmed:
            self._is_unconfirmed = False
            message = "committed, but not confirmed by the standby"
            raise asyncpg.StatementCompletionUnknownError(message)
        return status


def _note(connection: Connection, message: asyncpg.PostgresLogMessage) -> None:
    """The words are translated, the place in PostgreSQL's source is not."""
    if message.server_source_function == "SyncRepWaitForLSN":
        connection.doubt()
