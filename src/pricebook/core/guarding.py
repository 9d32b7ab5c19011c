"""Cells that a spreadsheet would run as formulas, neutralised so that nothing is lost.

A cell whose first character could begin a formula gets an apostrophe before it (OWASP, "CSV
Injection"). So does one that begins with an apostrophe, and the empty text becomes a lone
apostrophe, since a spreadsheet keeps no difference between an empty text and none. With that,
taking the apostrophe away again gives exactly what was there.
"""

from sqlalchemy import ColumnElement, Text, case, func, literal, literal_column

_MARK = "'"
_DANGEROUS = "\t\n\r=+-@"
_GUARDED = _DANGEROUS + _MARK
# All of them lie before it, and most texts begin with what lies after it.
_FIRST_HARMLESS = "A"


def guard(text: str) -> str:
    """Return what goes into a cell."""
    return _MARK + text if not text or text[0] in _GUARDED else text


def unguard(cell: str) -> str:
    """Return what went into a cell; one that was never guarded is returned as it is."""
    is_guarded = cell[:1] == _MARK and (len(cell) == 1 or cell[1] in _GUARDED)
    return cell[1:] if is_guarded else cell


def guarded(text: ColumnElement[str]) -> ColumnElement[str]:
    """Have PostgreSQL do what `guard` does; null stays null."""
    may_begin_so = text.collate("C") < literal_column(f"'{_FIRST_HARMLESS}'", Text())
    begins_so = func.strpos(_literal(_GUARDED), func.left(text, 1)) > 0
    return case((may_begin_so & begins_so, literal_column("''''", Text()) + text), else_=text)


def unguarded(cell: ColumnElement[str]) -> ColumnElement[str]:
    """Have PostgreSQL do what `unguard` does; null stays null."""
    begins_so = func.strpos(_literal(_GUARDED), func.substr(cell, 2, 1)) > 0
    is_guarded = (func.left(cell, 1) == literal_column("''''", Text())) & begins_so
    return case((is_guarded, func.substr(cell, 2)), else_=cell)


def _literal(text: str) -> ColumnElement[str]:
    return literal(text, Text())
