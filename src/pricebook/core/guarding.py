"""Cells that a spreadsheet would run as formulas, neutralised so that nothing is lost.

A cell whose first character could begin a formula gets an apostrophe before it (OWASP, "CSV
Injection"). So does one that begins with an apostrophe, and the empty text becomes a lone
apostrophe, since a spreadsheet keeps no difference between an empty text and none. With that,
taking the apostrophe away again gives exactly what was there.
"""

from sqlalchemy import ColumnElement, Text, case, func, literal_column

MARK = "'"
_DANGEROUS = "\t\n\r=+-@"
_GUARDED = _DANGEROUS + MARK
# All of them lie before it, and most texts begin with what lies after it.
_FIRST_HARMLESS = "A"


def guard(text: str) -> str:
    """Return what goes into a cell."""
    return MARK + text if not text or text[0] in _GUARDED else text


def unguard(cell: str) -> str:
    """Return what went into a cell; one that was never guarded is returned as it is."""
    is_guarded = cell[:1] == MARK and (len(cell) == 1 or cell[1] in _GUARDED)
    return cell[1:] if is_guarded else cell


def needs_guard(
    text: ColumnElement[str], beginning: ColumnElement[str] | None = None
) -> ColumnElement[bool]:
    """Have PostgreSQL tell whether `guard` changes a text; null for null.

    A `beginning` of the text, be it empty, saves making the text itself where it is harmless.
    """
    looked_at = text if beginning is None else beginning
    may_begin_so = looked_at.collate("C") < literal_column(f"'{_FIRST_HARMLESS}'", Text())
    return may_begin_so & (func.strpos(_ALL_GUARDED, func.left(text, 1)) > 0)


def unguarded(cell: ColumnElement[str]) -> ColumnElement[str]:
    """Have PostgreSQL do what `unguard` does; null stays null."""
    begins_so = func.strpos(_ALL_GUARDED, func.substr(cell, 2, 1)) > 0
    is_guarded = (func.left(cell, 1) == literal_column("''''", Text())) & begins_so
    return case((is_guarded, func.substr(cell, 2)), else_=cell)


# Written out: a value that is bound is handed over anew for each row.
_ALL_GUARDED: ColumnElement[str] = literal_column("'" + _GUARDED.replace("'", "''") + "'", Text())
