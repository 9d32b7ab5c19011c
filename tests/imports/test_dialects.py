"""What a file is written in, and what its columns mean."""

import pytest

from pricebook.imports.dialects import DELIMITERS, dialect_of, encoding_of
from pricebook.imports.errors import (
    ColumnMissing,
    ColumnsAmbiguous,
    FileUnreadable,
    HeaderUnreadable,
    SkuColumnMissing,
)


def _dialect(head, delimiter="auto", mapping=None):
    return dialect_of(head, "utf-8", delimiter, mapping or {})


@pytest.mark.parametrize(("name", "sign"), DELIMITERS.items())
def test_the_delimiter_is_the_one_that_makes_sense_of_the_header(name, sign):
    dialect = _dialect(sign.join(["sku", '"Name, or title; or\tlabel|"', "price"]) + "\n")
    assert dialect.delimiter == name
    assert dialect.columns == ("sku", "price")


def test_excel_says_in_a_line_of_its_own_what_separates_cells():
    dialect = _dialect("sep=;\r\nsku;a,price,name,cost\r\n")
    assert dialect.delimiter == "semicolon"
    assert dialect.columns == ("sku",)
    assert dialect.first_line == 3


@pytest.mark.parametrize(
    "header",
    [
        "sku,name,price,tax_rate",
        "SKU,NAME,PRICE,TAX_RATE",
        " Sku ,Name, Price,Tax rate",
        "sku,name,price,tax-rate",
        "Article number,Title,Unit price,VAT rate",
        "Item no.,Product,Unit Price (€),VAT (%)",
        "Item-No,Item_Name,LIST PRICE,vat",
    ],
)
def test_columns_are_known_whatever_their_case_spaces_and_usual_names(header):
    dialect = _dialect(header + "\n")
    assert dialect.columns == ("sku", "name", "price", "tax_rate")
    assert dialect.unknown_columns == ()


def test_columns_that_mean_nothing_are_told_by_name_or_place():
    dialect = _dialect("sku,Colour,,id,Updated At,line\n")
    assert dialect.unknown_columns == ("Colour", "column 3")
    assert dialect.ignored_columns == ("id", "Updated At", "line")


def test_names_of_columns_are_told_as_they_can_be_stored():
    dialect = _dialect('sku,"a\x00\r\nb","id\x00",' + "x" * 200 + "\n")
    assert dialect.unknown_columns == ("a b", "x" * 100)
    assert dialect.ignored_columns == ("id",)


def test_a_column_can_be_given_its_meaning():
    dialect = _dialect("Nummer;Bezeichnung\n", mapping={"nummer": "sku", "Bezeichnung": "name"})
    assert dialect.delimiter == "semicolon"
    assert dialect.columns == ("sku", "name")


def test_what_was_said_of_a_column_goes_before_what_its_name_says():
    dialect = _dialect("sku,name,title\n", mapping={"title": "name"})
    assert dialect.columns == ("sku", "name")
    assert dialect.positions == (0, 2)
    assert dialect.unknown_columns == ("name",)


def test_two_columns_for_one_field_are_refused():
    with pytest.raises(ColumnsAmbiguous, match=r"“Name” and “Title” both mean “name”"):
        _dialect("sku,Name,Title\n")
    with pytest.raises(ColumnsAmbiguous, match=r"“a” and “b” both mean “name”"):
        _dialect("sku,a,b\n", mapping={"a": "name", "b": "name"})
    with pytest.raises(ColumnsAmbiguous, match=r"“sku” and “SKU” both mean “sku”"):
        _dialect("sku,SKU\n")


def test_a_header_without_sku_is_refused_by_what_it_has():
    with pytest.raises(SkuColumnMissing, match="it has “name”, “colour”"):
        _dialect("name,colour\n")


def test_a_column_that_is_to_be_mapped_must_be_there():
    with pytest.raises(ColumnMissing, match="no column “Nummer”, which is to be “sku”"):
        _dialect("sku,name\n", mapping={"Nummer": "sku"})


@pytest.mark.parametrize("head", ["", "\n\r\n", ",,\n", 'sku,"name\n'])
def test_a_file_without_a_header_is_refused(head):
    with pytest.raises(HeaderUnreadable):
        _dialect(head)


def test_a_header_may_take_several_lines_and_follow_blank_ones():
    dialect = _dialect('\n\nsku,"Unit\r\nprice"\nA1,1\n')
    assert dialect.columns == ("sku", "price")
    assert dialect.first_line == 5


def test_workbooks_are_refused_in_words():
    with pytest.raises(FileUnreadable, match="Save it as CSV"):
        encoding_of(b"PK\x03\x04\x14\x00", "auto")


def test_a_few_zeros_make_no_utf_16():
    assert encoding_of(b"sku,name\nA1,\x00\x00\n" * 50, "auto") == ("utf-8", 0)
