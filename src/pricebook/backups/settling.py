"""What a restored database needs before it is used: it lives in another cluster, at another time.

The log's order goes by numbers of transactions, which another cluster gives out anew. Events from
a cluster that had got further would be hidden until this one comes to their numbers, and then
appear to be new. So all of them become events of the one transaction that brings them here, in
the order of their ids, which is that of time.

Log-ins and mailed links that were ended after the backup would be good again. So the epoch of
everyone's credentials moves on, and people log in anew. API keys do not belong to an epoch.
"""

import asyncpg

# A type that stays the same: the table is written anew, in one go, before it has indexes.
_EVENTS = "ALTER TABLE events ALTER COLUMN transaction_id TYPE xid8 USING pg_current_xact_id()"
_SESSIONS = "UPDATE users SET credentials_epoch = credentials_epoch + 1"


async def settle(connection: asyncpg.Connection, *, keeps_sessions: bool) -> None:
    """Make the rows fit where they are now; before the indexes are built."""
    async with connection.transaction():
        await connection.execute(_EVENTS)
        if not keeps_sessions:
            await connection.execute(_SESSIONS)
