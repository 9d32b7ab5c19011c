"""How many records have passed, however the bytes are cut."""

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from pricebook.commands.records import CsvCounter, LineCounter

CELLS = st.text(alphabet='a",;\r\n\t é', max_size=8)
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=6)
QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


@given(rows=ROWS, quoting=QUOTING, size=st.integers(1, 20))
def test_records_of_csv_are_counted_and_not_its_lines(rows, quoting, size):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting).writerows(rows)
    assert _counted(CsvCounter(), file.getvalue().encode(), size) == len(rows)


@given(rows=ROWS, size=st.integers(1, 20))
def test_each_line_of_json_is_a_record(rows, size):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert _counted(LineCounter(), lines.encode(), size) == len(rows)


def _counted(counter, sent, size):
    for start in range(0, len(sent), size):
        counter.take(sent[start : start + size])
    return counter.count
