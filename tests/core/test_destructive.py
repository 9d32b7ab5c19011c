"""What takes something away is told from what adds, by the SQL alone."""

import pytest
from alembic.script import ScriptDirectory

from pricebook.core.destructive import contracting_statements
from pricebook.core.migrating import sql_of
from pricebook.core.schema_head import alembic_config

CONTRACTING = [
    "DROP TABLE items",
    "drop view prices",
    "TRUNCATE events",
    "DELETE FROM items WHERE price = 0",
    "ALTER TABLE items DROP COLUMN notes",
    "ALTER TABLE items DROP notes",
    "ALTER TABLE items\n    DROP COLUMN notes",
    "ALTER TABLE items ADD COLUMN a int, DROP COLUMN b",
    "ALTER TABLE items RENAME COLUMN notes TO remarks",
    "ALTER TABLE items RENAME TO things",
    "ALTER TABLE items ALTER COLUMN sku TYPE varchar(20)",
    "ALTER TABLE items ALTER sku SET DATA TYPE varchar(20)",
    "ALTER TABLE items ALTER COLUMN notes SET NOT NULL",
    "ALTER TABLE items ALTER COLUMN tags DROP DEFAULT",
]
EXPANDING = [
    "CREATE TABLE prices (id uuid)",
    "ALTER TABLE items ADD COLUMN notes text",
    "ALTER TABLE items ADD CONSTRAINT ck CHECK (price > 0) NOT VALID",
    "ALTER TABLE items VALIDATE CONSTRAINT ck",
    "ALTER TABLE items DROP CONSTRAINT ck",
    "ALTER TABLE items ALTER COLUMN notes DROP NOT NULL",
    "ALTER TABLE items ALTER COLUMN notes SET DEFAULT ''",
    "DROP INDEX CONCURRENTLY IF EXISTS ix",
    "CREATE INDEX CONCURRENTLY ix ON items (name)",
    "DELETE FROM alembic_version WHERE version_num = '0001'",
    "COMMENT ON TABLE items IS 'x; DROP TABLE items'",
    "-- DROP TABLE items\nCREATE TABLE a (b int)",
    "DO $x$ BEGIN DROP TABLE IF EXISTS scratch; END $x$",
]


@pytest.mark.parametrize("statement", CONTRACTING)
def test_what_takes_away_is_found(statement: str) -> None:
    assert list(contracting_statements(f"BEGIN; {statement}; COMMIT;")) == [
        " ".join(statement.split())
    ]


@pytest.mark.parametrize("statement", EXPANDING)
def test_what_only_adds_is_let_through(statement: str) -> None:
    assert list(contracting_statements(f"BEGIN; {statement}; COMMIT;")) == []


def test_no_revision_so_far_takes_anything_away() -> None:
    scripts = list(ScriptDirectory.from_config(alembic_config()).walk_revisions())
    assert scripts
    for script in scripts:
        assert list(contracting_statements(sql_of(script))) == [], script.revision
