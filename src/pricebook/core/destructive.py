"""What in a migration's SQL takes something away that the version before may still use.

A process of the old version goes on for a while after the migration: what it reads and writes has
to be there. What only adds is an expanding step; what takes away, renames or narrows is a
contracting one, and comes a version later (migrations/README.md).
"""

import re
from collections.abc import Iterator

# What may hold anything: comments, strings, quoted bodies.
_OPAQUE = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'", re.DOTALL)
_CONTRACTING = re.compile(
    r"""
      ^\s*DROP\s+(TABLE|VIEW|MATERIALIZED\s+VIEW|SCHEMA|TYPE|DOMAIN|SEQUENCE|FUNCTION|EXTENSION)\b
    | ^\s*TRUNCATE\b
    | ^\s*DELETE\s+FROM\s+(?!alembic_version\b)
    | ^\s*ALTER\b.*\bRENAME\b
    | ^\s*ALTER\s+TABLE\b.*\bDROP\s+(COLUMN|DEFAULT|(?!CONSTRAINT\b|NOT\s+NULL\b|EXPRESSION\b)\w+)
    | ^\s*ALTER\s+TABLE\b.*\bALTER\s+(COLUMN\s+)?\w+\s+((SET\s+DATA\s+)?TYPE|SET\s+NOT\s+NULL)\b
    | ^\s*ALTER\s+TABLE\b.*\bSET\s+SCHEMA\b
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def contracting_statements(sql: str) -> Iterator[str]:
    """Yield the statements that take something away, each on one line."""
    for statement in _OPAQUE.sub(" ", sql).split(";"):
        if _CONTRACTING.search(statement):
            yield " ".join(statement.split())
