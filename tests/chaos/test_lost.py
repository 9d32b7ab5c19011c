"""Nothing acknowledged goes untold, whatever is killed; the usual way, under the same faults."""

import pytest
from tests.chaos.lost import Plan, run
from tests.chaos.ways import PricebooksWay, UsualWay

pytestmark = pytest.mark.chaos

PLAN = Plan()
# What a worker can have sent and not yet recorded when it dies.
CLAIM_BATCH = 1_000


@pytest.fixture
def say(capsys):
    def say(found):
        with capsys.disabled():
            print("", *found.lines(), sep="\n")  # noqa: T201 -- the figures are what it is run for

    return say


def test_promise_1_each_endpoint_gets_all_events_and_none_that_was_rolled_back(say):
    found = run(PLAN, PricebooksWay)
    say(found)
    assert list(found.delivered) == [PLAN.events] * PLAN.endpoints
    assert found.strangers == 0
    assert found.kills > PLAN.events / PLAN.events_a_second / PLAN.kill_seconds / 2
    assert found.duplicates < found.kills * CLAIM_BATCH + found.failures


def test_the_usual_way_loses_under_the_same_faults(say):
    found = run(PLAN, UsualWay)
    say(found)
    assert max(found.delivered) < PLAN.events
