"""Where a log ends, and which servers write or follow the same one."""

import pytest

from pricebook.core.wal import Log, NotReadableError, Standing, check_replica

PAGE, SEGMENT = 8_192, 16 * 1024 * 1024
OURS = Log(system=7, timeline=2)


def standing(position, *, is_standby=True, log=OURS):
    return Standing(is_standby=is_standby, log=log, position=position)


@pytest.mark.parametrize(
    ("told", "ends_at"),
    [
        (5 * SEGMENT + 40, 5 * SEGMENT),
        (5 * SEGMENT + 3 * PAGE + 24, 5 * SEGMENT + 3 * PAGE),
        # The end of what began on the page before.
        (5 * SEGMENT + 3 * PAGE + 40, 5 * SEGMENT + 3 * PAGE + 40),
        (5 * SEGMENT + 24, 5 * SEGMENT + 24),
        (5 * SEGMENT + 48, 5 * SEGMENT + 48),
    ],
)
def test_a_log_ends_before_the_header_of_a_page_that_is_still_empty(told, ends_at):
    row = {"is_standby": False, "position": told, "system": 7, "timeline": 2}
    row |= {"page_bytes": PAGE, "segment_bytes": SEGMENT}
    assert Standing.of(row) == standing(ends_at, is_standby=False)


def test_a_standby_on_the_primarys_timeline_may_be_read_however_late():
    check_replica(standing(10), standing(10, is_standby=False))
    check_replica(standing(0), standing(10, is_standby=False))


@pytest.mark.parametrize(
    ("theirs", "ours", "complaint"),
    [
        (standing(1), standing(1), "leads to a standby"),
        (standing(1, log=Log(8, 2)), standing(1, is_standby=False), "another database cluster"),
        (standing(1, is_standby=False), standing(1, is_standby=False), "promoted"),
        (standing(1, log=Log(7, 1)), standing(1, is_standby=False), "another timeline"),
        (standing(2), standing(1, is_standby=False), "histories have parted"),
    ],
)
def test_no_other_server_is_taken_for_a_replica(theirs, ours, complaint):
    with pytest.raises(NotReadableError, match=complaint):
        check_replica(theirs, ours)
