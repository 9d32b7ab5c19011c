"""Every kind of mail, in text and HTML, whatever people are called."""

from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from pricebook.auth.one_time import LIFETIMES
from pricebook.notifications.kinds import MailKind
from pricebook.notifications.letters import Change, write

WHEN = "2026-11-22T20:05:13.123456+00:00"
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "line\r\nBcc: eve@example.com\n\nand more",
    "x" * 200,
    "👩🏽‍🔧 Öl & Fett ½″ → ∞",
    "\u202etxt.exe\u2028",
]


def change(name="Hammer", **fields):
    values = {
        "sku": name[:64],
        "name": name,
        "old_price": Decimal("12.5000"),
        "new_price": Decimal("13.7500"),
        "old_currency": "EUR",
        "currency": "EUR",
        **fields,
    }
    return Change(**values)


def data_of(kind, name):
    """Return the data of each form that a kind of mail takes."""
    happened = {"occurred_at": WHEN}
    if kind is MailKind.SECURITY:
        yield {"event": "user.password_changed", **happened}
        scopes = ["items:read", "items:write"]
        yield {"event": "api_key.created", "scopes": scopes, **happened}
        yield {"event": "api_key.created", "scopes": scopes, "key_name": name, **happened}
    elif kind is MailKind.JOB_FINISHED:
        job = {"job_id": "0198", "status": "succeeded", **happened}
        counts = {"rows": 5, "new": 1, "changed": 1, "unchanged": 1, "refused": 2}
        ready = {"file": "/v1/exports/0198/file", "filename": name, "expires_at": WHEN}
        yield {**job, "kind": "export_file", "rows": 0, "bytes": 0, **ready}
        yield {**job, "kind": "import_items", "name": name, "mode": "dry-run", **counts}
        yield {**job, "kind": "import_items", "name": name, "has_errors_csv": True, **counts}
        yield {**job, "kind": "import_items", "status": "failed", "error": name}
        yield {**job, "kind": "another"}
    elif kind is MailKind.WEBHOOK_TROUBLE:
        trouble = {"webhook_id": "0198", **happened}
        yield {"event": "webhook.disabled", "reason": "gone", **trouble}
        more = {"host": "shop.example.com", "description": name}
        yield {"event": "webhook.disabled", "reason": "failing", **more, **trouble}
        yield {"event": "webhook.delivery_died", "delivery_id": "0199", **more, **trouble}
    else:
        yield {}


class Seen(HTMLParser):
    """What a reader of the mail sees, and what its program would fetch."""

    def __init__(self):
        super().__init__()
        self.tags = set()
        self.links = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"href", "src", "action"}]
        assert not any(name.startswith("on") for name, _value in attrs)

    def handle_data(self, data):
        self.text += data


def said(name, **more):
    return {
        "user_name": name,
        "email": "ann@example.com",
        "link": "https://prices.example.com/verify-email#token=pbv_abc",
        "public_url": "https://prices.example.com",
        "data": {},
        "changes": [change(name), change("Nail", currency="USD")],
        "change_count": 2,
        **more,
    }


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", MailKind)
def test_every_mail_can_be_written_to_and_about_anyone(kind, name):
    for data in data_of(kind, name):
        written = write(kind, said(name, data=data))
        assert 0 < len(written.subject) <= 150
        assert len(written.subject.splitlines()) == 1
        assert "\nBcc:" not in written.text
        assert "49" not in written.text + written.html
        seen = Seen()
        seen.feed(written.html)
        assert seen.tags.isdisjoint({"script", "img", "link", "iframe", "form"})
        assert all(link.startswith("https://prices.example.com") for link in seen.links)
        one_line = " ".join(name.split())
        assert one_line in " ".join(seen.text.split())
        assert one_line in written.text


@pytest.mark.parametrize("kind", [MailKind.PASSWORD_RESET, MailKind.VERIFY_EMAIL])
def test_the_link_stands_in_both(kind):
    written = write(kind, said("Ann"))
    for body in (written.text, written.html):
        assert "https://prices.example.com/verify-email#token=pbv_abc" in body


def test_the_mails_say_truly_how_long_their_links_work():
    assert LIFETIMES["password_reset"] == timedelta(hours=1)
    assert LIFETIMES["verify_email"] == timedelta(days=7)
    reset = write(MailKind.PASSWORD_RESET, said("Ann"))
    assert "within an hour" in reset.text
    assert "within an hour" in reset.html
    proof = write(MailKind.VERIFY_EMAIL, said("Ann"))
    assert "within seven days" in proof.text
    assert "for seven days" in proof.html


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("12.5000", "13.7500", "12.50 EUR → 13.75 EUR (+10.0 %)"),
        ("10.0000", "7.5000", "10.00 EUR → 7.50 EUR (\N{MINUS SIGN}25.0 %)"),
        ("0.0000", "1.0000", "0.00 EUR → 1.00 EUR\n"),
        ("0.0001", "0.0125", "0.0001 EUR → 0.0125 EUR (+12,400.0 %)"),
        (
            "9999999999.9999",
            "1234567.0000",
            "9,999,999,999.9999 EUR → 1,234,567.00 EUR (\N{MINUS SIGN}100.0 %)",
        ),
    ],
)
def test_amounts_are_written_for_people(old, new, shown):
    changed = change(old_price=Decimal(old), new_price=Decimal(new))
    written = write(MailKind.PRICE_CHANGES, said("Ann", changes=[changed], change_count=1))
    assert shown in written.text


def test_a_change_of_currency_is_no_percentage():
    changed = change(currency="USD")
    written = write(MailKind.PRICE_CHANGES, said("Ann", changes=[changed], change_count=1))
    assert "12.50 EUR → 13.75 USD\n" in written.text
    assert written.subject == "Hammer: 12.50 EUR → 13.75 USD"
