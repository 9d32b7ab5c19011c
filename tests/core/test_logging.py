"""Logs: one form for every line, the request in it, and no local variable of a traceback."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from pricebook.core.context import RequestContext, enter_context
from pricebook.core.logging import configure_logging
from pricebook.core.settings import LogSettings
configure_logging(LogSettings(format={format!r}, level={level!r}))
log = structlog.get_logger("pricebook.tests")
enter_context(RequestContext("till-7:0001"))
log.debug("too quiet")
log.info("counted", items=3)
logging.getLogger("some.library").warning("from a %s", "library")
def fail():
    password = "canary-" + "secret"
    raise LookupError("gone")
try:
    fail()
except LookupError:
    log.exception("failed")
    logging.getLogger("some.library").exception("failed there")
"""


def lines_of(form: str, level: str = "INFO") -> list[str]:
    program = PROGRAM.format(format=form, level=level)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_each_line_is_one_json_object(form):
    counted, library, failed, failed_there = map(json.loads, lines_of(form))
    assert counted["event"] == "counted"
    assert (counted["level"], counted["items"]) == ("info", 3)
    assert counted["timestamp"].endswith("Z")
    assert (library["event"], library["level"]) == ("from a library", "warning")
    for line in (failed, failed_there):
        assert line["level"] == "error"
        assert "LookupError: gone" in line["exception"]
    for line in (counted, library, failed, failed_there):
        assert line["request_id"] == "till-7:0001"


def test_on_a_terminal_people_can_read_it():
    text = "\n".join(lines_of("console"))
    assert "counted" in text
    assert "LookupError: gone" in text
    assert not text.startswith("{")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variable(form):
    assert "canary-secret" not in "\n".join(lines_of(form))


def test_less_severe_lines_are_left_out():
    assert len(lines_of("json", "ERROR")) == 2
