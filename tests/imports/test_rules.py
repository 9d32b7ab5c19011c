"""A file is held to the rules of the API: what `ItemIn` takes is taken, with the same value."""

import csv
import io
from itertools import product

import pycountry
import pytest
from pydantic import ValidationError

from pricebook.items.schemas import ItemIn, ItemPatch

FIELDS = list(ItemIn.model_fields)
PLAIN = {"sku": "", "name": "Hammer", "price": "1", "currency": "EUR"}

# Spaces, controls and marks of every kind; what case changes make of letters; what is unassigned.
CHARACTERS = (
    "\t\n\x0b\x0c\r\x1b\x1c\x1f\x7f\x80\x85\xa0\xad\u1680\u180e\u2000\u2007\u200a\u200b\u200d\u2028"
    "\u2029\u202e\u202f\u205f\u2060\u3000\ufeff\ufffd\ufffe\ue000\U000e0fff\U0001f528"
    " !\"'()*+,-./:;<=>?@\\|~aZß\u0131\u017f\u0301é漢\u0e01\u05d0"
)
AROUND = ("{}", "{}a", "a{}", "a{}b", " a{}b ")
TEXTS = [form.format(one) for one, form in product(CHARACTERS, AROUND)]
LENGTHS = [letter * length for length in (1, 3, 50, 51, 64, 65, 200, 201) for letter in "aé漢"]
PROSE = [letter * length for length in (9_999, 10_000, 10_001, 20_001) for letter in "aé"]
SPACED = ["  a  ", f"{' ' * 300}a", f"a{' ' * 19_999}", f"a{' ' * 20_000}", " ", "  "]
SIGNS = ("", "+", "-", " ", "$", "--")
WHOLES = ("", "0", "1", "00", "99", "100", "101", "9999999999", "10000000000", "00000000000001")
FRACTIONS = ("", ".", ".0", ".5", ".1234", ".12345", ".12340", ".123", ".1230", ".0000", ".00001")
EXPONENTS = ("", "e2", "E+1", "e-3", "e1000", " ", "\n", "x")
NUMBERS = [
    "".join(parts) for parts in product(SIGNS, WHOLES, FRACTIONS, EXPONENTS) if len("".join(parts))
]
ODD_NUMBERS = ["NaN", "inf", "-Infinity", "1_000", "0x10", "1 000", "1,5", "1,000", "1,000.00", "٣"]
CURRENCIES = [
    *(one.alpha_3 for one in pycountry.currencies),
    *("eur", "Eur", "EU", "EURO", "EUR ", " EUR", "XXX", "ABC", "€", "e\u0131r", "\u017fek", "ßR"),
]
TAGS = [
    *("a", "a;b", "b;a;b", " a ; b ", "a;", ";a", "a;;b", ";", " ", "a; ", "B;a;A;é;漢;Z"),
    *("x" * 50, "x" * 51, f"{'x' * 50} ;a", "a\nb", "a\x1cb", "a\xa0;b", "\u3000a"),
    ";".join(f"t{number}" for number in range(50)),
    ";".join(f"t{number}" for number in range(51)),
    ";".join(["a"] * 51),
    ";".join("é" * 50 + str(number) for number in range(10)),
    ";".join(str(number) + "漢" * 40 for number in range(45)),
]
VALUES = {
    "sku": [*TEXTS, *LENGTHS, *SPACED],
    "name": [*TEXTS, *LENGTHS, *SPACED, *PROSE],
    "description": [*TEXTS, *PROSE, *SPACED],
    "notes": [*PROSE, *SPACED],
    "price": [*NUMBERS, *ODD_NUMBERS, *SPACED],
    "cost": [*NUMBERS[::7], *ODD_NUMBERS],
    "tax_rate": [*NUMBERS, *ODD_NUMBERS],
    "currency": [*CURRENCIES, *LENGTHS],
    "tags": [*TAGS, *TEXTS],
}


def rows_of(field):
    """Return an item for each value, all else in order."""
    for number, value in enumerate(dict.fromkeys([*VALUES[field], ""])):
        yield {**PLAIN, "sku": f"T-{number}", field: value}


def written(rows, columns, to_cell=str):
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([to_cell(row.get(name, "")) for name in columns])
    return file.getvalue()


def expected(row):
    """Return the item that the API would make of a row, or None."""
    given = {name: text for name, text in row.items() if text}
    if "tags" in given:
        given["tags"] = given["tags"].split(";")
    try:
        return ItemIn.model_validate(given).model_dump()
    except ValidationError:
        return None


async def compare(job, items, rows):
    """Whether just those are taken that the API takes, with the same values."""
    found = await items()
    wrong = []
    taken = 0
    for row in rows:
        item, wanted = found.get(row["sku"]), expected(row)
        stored = item and {name: getattr(item, name) for name in FIELDS}
        taken += wanted is not None
        if stored != wanted:
            wrong.append((row, stored))
    assert wrong == []
    assert taken == len(found) == job.result["new"]
    assert job.result["refused"] == len(rows) - taken


@pytest.mark.parametrize("field", FIELDS)
async def test_a_value_is_taken_if_and_only_if_the_api_takes_it(do_import, items, field):
    rows = list(rows_of(field))
    columns = list(dict.fromkeys([*PLAIN, field]))
    job = await do_import(written(rows, columns), skip_refused=True, guarded=False)
    assert job.status == "succeeded", job.error
    await compare(job, items, rows)
    assert {one["column"] for one in job.result["refusals"]} <= {field}


@pytest.mark.parametrize("field", ["price", "tax_rate"])
async def test_a_decimal_comma_means_what_a_point_does(do_import, items, field):
    rows = [row for row in rows_of(field) if "," not in row[field]]
    columns = list(dict.fromkeys([*PLAIN, field]))
    swapped = written(rows, columns, lambda cell: cell.replace(".", ","))
    job = await do_import(swapped, skip_refused=True, guarded=False, decimal="comma")
    await compare(job, items, rows)


async def test_what_is_guarded_is_read_as_what_it_guards(do_import, items):
    rows = [{**PLAIN, "sku": f"T-{number}", "name": one} for number, one in enumerate(TEXTS)]
    rows = [row for row in rows if expected(row)]
    job = await do_import(written(rows, PLAIN, guarded))
    assert job.status == "succeeded", job.result["refusals"]
    await compare(job, items, rows)


def guarded(cell):
    return f"'{cell}" if cell[0] in "\t\n\r=+-@'" else cell


def test_the_rules_of_a_part_are_those_of_the_whole():
    """A file may lack columns, so `ItemPatch` reads rows; it must be as strict as `ItemIn`."""
    whole, part = ItemIn.model_json_schema(), ItemPatch.model_json_schema()
    for name, rule in part["properties"].items():
        wanted = {
            key: value for key, value in whole["properties"][name].items() if key != "default"
        }
        assert rule == wanted


@pytest.mark.parametrize(
    ("value", "decimal", "words"),
    [
        ("12,50", "point", "must have a decimal point, such as 12.50; or choose the decimal comma"),
        ("1,234.50", "point", "must be without thousands separators, such as 1234.50"),
        ("1.234,50", "point", "must be without thousands separators, such as 1234.50"),
        ("1 234", "point", "must be without thousands separators, such as 1234.50"),
        ("1.234,50", "comma", "must be without thousands separators, such as 1234,50"),
        ("1.234", "comma", "must be without thousands separators, such as 1234,50"),
        ("12.50", "comma", "must have a decimal comma, such as 12,50"),
        ("-1", "point", "must be 0 or more"),
        ("1.23456", "point", "must have at most 4 places after the point"),
        ("1,23456", "comma", "must have at most 4 places after the comma"),
        ("12345678901", "point", "must have at most 10 digits before the point"),
        ("", "point", "must not be empty"),
    ],
)
async def test_a_refused_price_is_explained(do_import, value, decimal, words):
    sent = written([{**PLAIN, "sku": "A", "price": value}], PLAIN)
    job = await do_import(sent, decimal=decimal)
    assert job.result["refusals"] == [
        {"line": 2, "column": "price", "value": value, "detail": words}
    ]


async def test_a_currency_that_is_none_is_explained(do_import):
    job = await do_import(written([{**PLAIN, "sku": "A", "currency": "EURO"}], PLAIN))
    (refusal,) = job.result["refusals"]
    assert refusal["detail"] == "must be a code of ISO 4217, such as EUR"


async def test_a_refused_tag_is_shown_alone_and_a_long_value_in_part(do_import):
    long = "x" * 300
    job = await do_import(f"sku,tags,name\nA,good;{'y' * 51},{long}\n")
    found = [(one["column"], one["value"]) for one in job.result["refusals"]]
    assert found == [("tags", "y" * 51), ("name", "x" * 100)]
