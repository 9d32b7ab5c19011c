"""What the rows of each table come to: the same for the same rows, in whatever order they lie."""

import asyncpg

from pricebook.backups.manifest import TableSum

_VERSIONS = "alembic_version"

# What Pricebook writes as text must read the same wherever it is summed up.
_PLAIN_TEXT = """
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
SET extra_float_digits = 1; SET bytea_output = 'hex'; SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0
"""
# By name, since columns that were added late lie elsewhere in a new table. What PostgreSQL
# computes from the others follows from them, and may change with its version.
_COLUMNS = """
SELECT relname::text AS name, quote_ident(relname) AS quoted,
       coalesce(string_agg(quote_ident(attname), ', ' ORDER BY attname), 'NULL') AS columns
FROM pg_class LEFT JOIN pg_attribute
  ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
GROUP BY relname ORDER BY relname
"""
# Sixty-four bits of each row's digest, added up; a bigint of bytes is PostgreSQL 18's.
_SUM = """
SELECT count(*) AS rows, coalesce(mod(sum(
    substring(sha256(convert_to(ROW({columns})::text, 'UTF8')) FOR 8)::bigint
    ), 18446744073709551616), 0)::text AS hash
FROM public.{table}
"""


async def row_sums(connection: asyncpg.Connection) -> dict[str, TableSum]:
    """Sum up every table as the connection sees it, but for the one that tells the head."""
    await connection.execute(_PLAIN_TEXT)
    sums = {}
    for row in await connection.fetch(_COLUMNS):
        if row["name"] == _VERSIONS:
            continue
        summed = await connection.fetchrow(_SUM.format(table=row["quoted"], columns=row["columns"]))
        sums[row["name"]] = TableSum(rows=summed["rows"], hash=summed["hash"])
    return sums
