"""Whether the API is in use, as far as exports give way to it."""

import pytest

from pricebook.core import traffic
from pricebook.core.traffic import Traffic


@pytest.mark.parametrize(("seconds_later", "is_busy"), [(0.0, True), (0.09, True), (0.11, False)])
def test_a_request_keeps_the_api_busy_for_a_moment(monkeypatch, seconds_later, is_busy):
    moment = 1_000.0
    monkeypatch.setattr(traffic.time, "monotonic", lambda: moment)
    seen = Traffic()
    assert not seen.is_busy()
    seen.note()
    moment += seconds_later
    assert seen.is_busy() is is_busy


async def test_each_request_of_the_api_is_noted(api, app):
    app.state.traffic._last_at = 0.0
    await api.get("/ping")
    assert app.state.traffic._last_at > 0
