"""Files as people have them, read to their last cell."""

import codecs
import csv
import gzip
import io
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from pricebook.imports.dialects import DELIMITERS
from pricebook.imports.errors import FileUnreadable, NotUtf8Error
from pricebook.imports.reading import CsvFile, CsvOptions, open_csv
from pricebook.jobs.run import JobRefused

_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


async def _chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def _open(data: bytes | str, *, size: int = 7, **options: Any) -> CsvFile:
    sent = data.encode() if isinstance(data, str) else data
    wanted = CsvOptions(**{"max_unpacked_bytes": 10_000_000, **options})
    return await open_csv(_chunks(sent, size), wanted)


async def _rows(file: CsvFile) -> list[list[str | None]]:
    """Each row as PostgreSQL would read it."""
    copied = b"".join([piece async for piece in file.copy()]).decode()
    return [[_value(cell) for cell in line.split("\t")] for line in copied.split("\n")[:-1]]


def _value(cell: str) -> str | None:
    return None if cell == r"\N" else _ESCAPED.sub(lambda found: _MEANT[found[1]], cell)


async def _read(data: bytes | str, **options: Any) -> list[list[str | None]]:
    return await _rows(await _open(data, **options))


async def _problems(data: str, **options: Any) -> dict[str | None, str]:
    return {line: problem for line, problem, *_ in await _read(data, **options) if problem}


async def test_a_row_is_its_line_its_problem_and_its_cells():
    assert await _read("sku,price\nA1,12.50\nA2,\n") == [
        ["2", None, "A1", "12.50"],
        ["3", None, "A2", ""],
    ]


async def test_cells_come_as_they_were_sent():
    assert await _read("sku,name\n A1 ,'=1+1\n") == [["2", None, " A1 ", "'=1+1"]]


async def test_quoted_text_keeps_its_delimiters_breaks_and_quotation_marks():
    data = 'sku,name\nA1,"one, ""two""\r\nthree\tfour\\n"\nA2,x\n'
    assert await _read(data) == [
        ["2", None, "A1", 'one, "two"\r\nthree\tfour\\n'],
        ["4", None, "A2", "x"],
    ]


async def test_a_line_is_the_one_where_its_record_begins():
    data = 'sku,"the\nname"\n\nA1,"a\nb"\n\n,\nA2,"\r\r\n"\nA3,c'
    assert [row[0] for row in await _read(data)] == ["4", "8", "11"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
async def test_lines_may_end_in_any_way_wherever_the_pieces_part(end, size):
    data = end.join(["sku,name", "A1,Hammer", '"A2","Nail"', ""])
    expected = [["2", None, "A1", "Hammer"], ["3", None, "A2", "Nail"]]
    assert await _read(data, size=size) == expected


async def test_the_last_line_needs_no_end():
    assert await _read("sku,name\nA1,Hammer") == [["2", None, "A1", "Hammer"]]


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", b""),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", b""),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("windows-1252", b""),
    ],
)
async def test_the_encoding_is_found_out(encoding, bom):
    file = await _open(bom + "sku,name\nA1,Möbel für 5 €\n".encode(encoding))
    assert file.dialect.encoding == encoding
    assert await _rows(file) == [["2", None, "A1", "Möbel für 5 €"]]


async def test_an_encoding_that_was_said_is_not_guessed():
    file = await _open("sku,name\nA1,Möbel\n".encode(), encoding="windows-1252")
    assert await _rows(file) == [["2", None, "A1", "MÃ¶bel"]]


async def test_what_turns_out_to_be_no_utf_8_asks_to_begin_again():
    data = b"sku,name\n" + b"A1,Hammer\n" * 10_000 + b"A2,M\xf6bel\n"
    with pytest.raises(NotUtf8Error):
        await _read(data, size=4_096)
    again = await _read(data, size=4_096, encoding="windows-1252")
    assert again[-1] == ["10002", None, "A2", "Möbel"]


async def test_the_line_that_breaks_the_encoding_is_named():
    with pytest.raises(FileUnreadable, match="Line 3 is not utf-8; say"):
        await _read(b"sku,name\nA1,x\nA2,M\xf6bel\n", encoding="utf-8")
    data = b"sku,name\n" + b"A1,Hammer\n" * 10_000 + b"A2,M\xf6bel\nA3,\x81\n"
    with pytest.raises(FileUnreadable, match="Line 10003 is not windows-1252; say"):
        await _read(data, size=4_096, encoding="windows-1252")


async def test_half_a_character_at_the_end_is_none():
    with pytest.raises(NotUtf8Error):
        await _read("sku,name\nA1,Möbe".encode() + b"\xc3")


async def test_a_row_of_another_width_than_the_header_has_a_problem_and_its_cells():
    assert await _read("sku,name,price\nA1,x\nA2,x,1,2\nA3,x,1\nA4\n") == [
        ["2", "has 2 cells, the header has 3", "A1", "x", ""],
        ["3", "has 4 cells, the header has 3", "A2", "x", "1"],
        ["4", None, "A3", "x", "1"],
        ["5", "has 1 cell, the header has 3", "A4", "", ""],
    ]


async def test_rows_with_nothing_in_them_are_left_out():
    file = await _open("sku,name\n\nA1,x\n,\n\r\n   \nA2,\n,,\n")
    rows = await _rows(file)
    assert [row[0] for row in rows] == ["3", "6", "7"]
    assert file.rows_read == 3


async def test_a_file_of_skus_alone_can_be_read():
    assert await _read('sku\nA1\n\n""\nA2\n') == [["2", None, "A1"], ["5", None, "A2"]]


async def test_u_0000_is_a_problem_that_can_still_be_shown():
    data = "sku,name\nA1,a\x00b\nA2,c\n"
    assert await _read(data, encoding="utf-8") == [
        ["2", "holds the character U+0000", "A1", "a\ufffdb"],
        ["3", None, "A2", "c"],
    ]


async def test_a_quotation_mark_that_is_never_closed_is_named_by_its_line():
    problems = await _problems('sku,name,notes\nA1,x,y\nA2,"a\nb","c\nA3,x,y\n')
    assert problems == {"3": "the quotation mark that opens in line 4 is never closed"}


async def test_a_quotation_mark_inside_of_quoted_text_is_a_problem_of_its_row_alone():
    rows = await _read('sku,name\nA1,"12" nails"\nA2,"x"\nA3,5" pipe\n')
    assert [row[0] for row in rows if row[1]] == ["2"]
    assert "text follows a closing quotation mark" in (rows[0][1] or "")
    assert rows[1:] == [["3", None, "A2", "x"], ["4", None, "A3", '5" pipe']]


async def test_a_record_without_an_end_is_refused_before_it_fills_the_memory():
    for endless in ('A1,"' + "x\n" * 2_000_000, "x" * 3_000_000, '"a\n",' * 600_000):
        with pytest.raises(FileUnreadable, match="What begins in line 3 is longer than"):
            await _read("sku,name\nA0,x\n" + endless, size=65_536)


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
async def test_packed_files_are_read_like_others(packed):
    data = packed(b"sku,name\nA1,Hammer\n")
    file = await _open(data)
    assert await _rows(file) == [["2", None, "A1", "Hammer"]]
    assert file.bytes_read == len(data)


async def test_a_packed_file_that_breaks_off_is_refused():
    data = gzip.compress(b"sku,name\n" + b"A1,Hammer\n" * 50_000)
    with pytest.raises(FileUnreadable, match="breaks off before its end"):
        await _read(data[:-9])


async def test_a_file_past_the_limit_once_unpacked_is_refused():
    data = gzip.compress(b"sku,name\n" + b"A1,Hammer\n" * 200_000)
    with pytest.raises(FileUnreadable, match="larger than 1,000,000 bytes"):
        await _read(data, size=65_536, max_unpacked_bytes=1_000_000)


async def test_columns_that_no_item_has_are_left_out_wherever_they_stand():
    file = await _open("id,price,colour,sku\n7,1,red,A1\n8,2,\\,A2\n")
    assert file.dialect.columns == ("price", "sku")
    assert await _rows(file) == [["2", None, "1", "A1"], ["3", None, "2", "A2"]]


_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
_AWKWARD = st.sampled_from(
    ['"', ",", ";", "\t", "|", "\\", "\r\n", "\n", "\r", "", "\\N", "'", "é"]
)
_WIDTH = 3
_TABLES = st.lists(
    st.lists(st.one_of(_CELLS, _AWKWARD), min_size=_WIDTH, max_size=_WIDTH), max_size=12
)


@given(
    table=_TABLES,
    delimiter=st.sampled_from(sorted(DELIMITERS)),
    # csv.writer leaves a CR bare unless lines end in it.
    lines=st.sampled_from(
        [
            ("\r\n", csv.QUOTE_MINIMAL),
            ("\r\n", csv.QUOTE_ALL),
            ("\n", csv.QUOTE_ALL),
            ("\r", csv.QUOTE_ALL),
        ]
    ),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
    size=st.sampled_from([1, 5, 64, 1_000]),
)
@example([["\r", "\n", "\r\n"]], "comma", ("\r\n", csv.QUOTE_MINIMAL), "utf-8", 1)
async def test_every_table_comes_back_cell_for_cell(table, delimiter, lines, encoding, size):
    end, quoting = lines
    sign = DELIMITERS[delimiter]
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=sign, lineterminator=end, quoting=quoting)
    writer.writerows([["sku", "name", "notes"], *table])
    data = written.getvalue().encode(encoding)
    read = await _read(data, size=size, delimiter=delimiter, encoding=encoding)
    assert [row[2:] for row in read] == [row for row in table if any(row)]
    assert not any(row[1] for row in read)


@given(
    head=st.sampled_from([b"", b"sku,name\n", b"\xff\xfes\x00k\x00u\x00\n\x00", b'sku;"name"\r']),
    rest=st.one_of(
        st.binary(max_size=60),
        st.text('",;\t\n\r\\\x00aé', max_size=60).map(str.encode),
    ),
    encoding=st.sampled_from(["auto", "utf-8", "utf-16", "windows-1252"]),
)
async def test_whatever_comes_is_read_or_refused_in_words(head, rest, encoding):
    try:
        file = await _open(head + rest, encoding=encoding)
        rows = await _rows(file)
    except (JobRefused, NotUtf8Error) as refusal:
        said = str(refusal)
        rows = []
    else:
        said = "".join(cell or "" for row in rows for cell in row)
        assert {len(row) for row in rows} <= {2 + len(file.dialect.columns)}
    assert "\x00" not in said
    lines = [int(row[0] or 0) for row in rows]
    assert lines == sorted(set(lines))
