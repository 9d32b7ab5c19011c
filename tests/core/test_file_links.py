"""Links to files: whose they are, to what, and until when."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from pydantic import SecretStr

from pricebook.core.clock import now
from pricebook.core.file_links import FileLinks, Linked
from pricebook.core.settings import Settings

OWNER, OTHER = UUID(int=1), UUID(int=2)
MINE = Linked("/v1/exports/1/file", OWNER, 3)
OLD_KEY, NEW_KEY = "the first key of all that is long enough", "another key that is long enough too"


def links_under(*keys):
    return FileLinks(
        Settings(secret_key=SecretStr(",".join(keys)), public_url="https://p.example/")
    )


def linked_until(links, moment):
    """Return what a link says: until when, and its signature."""
    link = urlsplit(links.url(MINE, moment))
    assert f"{link.scheme}://{link.netloc}{link.path}" == "https://p.example/v1/exports/1/file"
    asked = parse_qs(link.query)
    return int(asked["expires"][0]), asked["signature"][0]


@pytest.fixture
def links():
    return links_under(OLD_KEY)


@pytest.fixture
def signed(links):
    return linked_until(links, now() + timedelta(hours=1))


def test_a_link_opens_what_it_was_made_for(links, signed):
    assert links.opens(MINE, *signed)


@pytest.mark.parametrize(
    "other",
    [
        Linked("/v1/exports/2/file", OWNER, 3),
        Linked("/v1/exports/1/file", OTHER, 3),
        Linked("/v1/exports/1/file", OWNER, 4),
    ],
)
def test_a_link_opens_nothing_else_for_nobody_else_and_not_once_credentials_have_ended(
    links, signed, other
):
    assert not links.opens(other, *signed)


def test_a_link_is_good_for_no_longer_than_it_says(links, signed):
    expires, signature = signed
    assert not links.opens(MINE, expires + 1, signature)
    assert not links.opens(MINE, *linked_until(links, now() - timedelta(seconds=1)))


@pytest.mark.parametrize("forged", ["", "é", "x" * 43, "\ud800"])
def test_a_forged_signature_opens_nothing(links, signed, forged):
    assert not links.opens(MINE, signed[0], forged)
    assert not links.opens(MINE, signed[0], signed[1] + forged + "=")


def test_a_rotated_key_still_opens_and_one_that_is_gone_does_not(signed):
    assert links_under(NEW_KEY, OLD_KEY).opens(MINE, *signed)
    assert not links_under(NEW_KEY).opens(MINE, *signed)


def test_without_a_key_there_is_no_link():
    links = FileLinks(Settings(secret_key=None))
    assert links.url(MINE, now()) is None
    assert not links.opens(MINE, 2**40, "x" * 43)
