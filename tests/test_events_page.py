"""The README's page on events, held to the code."""

import pytest
from tests.conftest import ROOT

from pricebook.core.outbox import EVENT_TYPES
from pricebook.events_page import BEGIN, END, events_page, example
from pricebook.subscriptions import SUBSCRIPTIONS


def test_the_readme_has_the_page_as_the_code_writes_it():
    """`pricebook events-page` prints what belongs between the markers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = readme[readme.index(BEGIN) : readme.index(END) + len(END)]
    assert found == events_page().rstrip("\n")


def test_every_event_of_pricebook_is_on_the_screen_of_subscriptions():
    ours = {one for one in EVENT_TYPES.values() if one.__module__.startswith("pricebook.")}
    assert set(SUBSCRIPTIONS) == ours


@pytest.mark.parametrize("event", SUBSCRIPTIONS, ids=lambda event: event.type)
def test_an_example_is_what_the_event_writes(event):
    data = example(event)
    assert event.model_validate(data).model_dump(mode="json") == data
    assert data[event.subject]
