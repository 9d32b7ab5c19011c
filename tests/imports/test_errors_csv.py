"""errors.csv: the refused rows as they were sent, to be mended and sent again."""

import csv
import io

import pytest

from pricebook.core.files import FileMissingError

SENT = (
    "Price;SKU;Colour;Name;Currency;Tags;Line\n"
    "'=1+1;A-1;red;Hammer, big;EUR;;7\n"
    '12,5;B-1;;"Two\nlines; ""quoted""";EUR;;\n'
    "1;C-1;;'+Nail;EUR;'-x;\n"
    "1;D-1;;Größe;XXX;=cmd;\n"
)


async def test_refused_rows_come_back_as_they_were_sent_with_their_line_and_reason(
    do_import, errors_of
):
    job = await do_import(SENT, skip_refused=True, decimal="comma")
    assert (job.status, job.result["refused"], job.result["new"]) == ("succeeded", 3, 1)
    assert job.result["has_errors_csv"]
    rows = list(csv.reader(io.StringIO(await errors_of(job), newline=""), delimiter=";"))
    assert rows[0] == ["price", "sku", "name", "currency", "tags", "line", "reason"]
    assert [row[:-1] for row in rows[1:]] == [
        ["'=1+1", "A-1", "Hammer, big", "EUR", "", "2"],
        ["12,5", "B-1", 'Two\nlines; "quoted"', "EUR", "", "3"],
        # What was not guarded is, here.
        ["1", "D-1", "Größe", "XXX", "'=cmd", "6"],
    ]
    assert rows[1][-1] == "price: must be a decimal number, such as 12,50"
    assert rows[2][-1] == "name: must not hold control characters or line breaks"


async def test_mended_rows_can_be_sent_again(do_import, errors_of, items):
    first = await do_import(SENT, skip_refused=True, decimal="comma")
    mended = (await errors_of(first)).replace("'=1+1", "1,5").replace("Two\n", "Two ")
    job = await do_import(mended.replace("XXX", "CHF"), decimal="comma")
    assert job.status == "succeeded", job.result["refusals"]
    assert job.result["ignored_columns"] == ["line", "reason"]
    found = await items()
    assert {sku: item.tags for sku, item in found.items()} == {
        "A-1": [],
        "B-1": [],
        "C-1": ["-x"],
        "D-1": ["=cmd"],
    }


async def test_a_row_may_be_wrong_in_several_ways_and_as_a_whole(do_import, errors_of):
    sent = "sku,name,price,currency\n ,,x,EUR\nA,Nail\nB,Nail,1,EUR,more\n"
    job = await do_import(sent)
    assert job.error == "3 of 3 rows are refused; nothing was changed."
    assert [(one["line"], one["column"], one["detail"]) for one in job.result["refusals"]] == [
        (2, "sku", "must not be empty"),
        (2, "name", "must not be empty"),
        (2, "price", "must be a decimal number, such as 12.50"),
        (3, None, "has 2 cells, the header has 4"),
        (4, None, "has 5 cells, the header has 4"),
    ]
    first, *others = (await errors_of(job)).splitlines()[1:]
    assert first.startswith(' ,,x,EUR,2,"sku: must not be empty; name: must not be empty; price')
    assert others == [
        'A,Nail,,,3,"has 2 cells, the header has 4"',
        'B,Nail,1,EUR,4,"has 5 cells, the header has 4"',
    ]


async def test_the_report_shows_100_refusals_and_the_file_all(do_import, errors_of):
    sent = "sku,name\n" + "".join(f"{number}, \n" for number in range(1_500))
    job = await do_import(sent, mode="dry-run")
    assert (job.status, job.result["refused"], len(job.result["refusals"])) == (
        "succeeded",
        1_500,
        100,
    )
    assert [one["line"] for one in job.result["refusals"]] == list(range(2, 102))
    assert len((await errors_of(job)).splitlines()) == 1_501


async def test_there_is_no_such_file_when_nothing_is_refused(do_import, errors_of):
    job = await do_import("sku,name,price,currency\nA,Nail,1,EUR\n")
    assert not job.result["has_errors_csv"]
    with pytest.raises(FileMissingError):
        await errors_of(job)
