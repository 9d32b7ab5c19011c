"""What mails say: templates, and what is filled into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pricebook.core.mail import on_one_line
from pricebook.notifications.kinds import MailKind

_CENTS = Decimal("0.01")
_SUBJECT_LENGTH = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What has become of an item's price since it was last told."""

    sku: str
    name: str
    old_price: Decimal
    new_price: Decimal
    old_currency: str
    currency: str

    @property
    def per_cent(self) -> Decimal | None:
        """How much more or less it is, where that can be said."""
        if self.old_currency != self.currency or not self.old_price:
            return None
        return (self.new_price - self.old_price) / self.old_price * 100


@dataclass(frozen=True, slots=True)
class Written:
    """A mail's words."""

    subject: str
    text: str
    html: str


def write(kind: MailKind, said: Mapping[str, Any]) -> Written:
    """Fill `said` into the templates of this kind of mail; a text's first line is the subject."""
    first, _, text = _TEXT.get_template(f"{kind}.txt").render(said).partition("\n")
    subject = _shortened(on_one_line(first))
    html = _HTML.get_template(f"{kind}.html").render(said, subject=subject)
    return Written(subject, text.strip() + "\n", html)


def changes_of(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Change]:
    """Read changes from what the first and the last notification of each item say."""
    return [
        Change(
            sku=last["sku"],
            name=last["name"],
            old_price=Decimal(first["old_price"]),
            new_price=Decimal(last["new_price"]),
            old_currency=first["old_currency"],
            currency=last["currency"],
        )
        for first, last in rows
    ]


def _shortened(subject: str) -> str:
    if len(subject) <= _SUBJECT_LENGTH:
        return subject
    return subject[: _SUBJECT_LENGTH - 1].rstrip() + "…"


def _amount(price: Decimal) -> str:
    """Write an amount with two places, or with as many more as it needs."""
    return f"{price:,.2f}" if price == price.quantize(_CENTS) else f"{price.normalize():,f}"


def _per_cent(share: Decimal) -> str:
    return f"{share:+,.1f} %".replace("-", "\N{MINUS SIGN}")


def _moment(written: str) -> str:
    return f"{datetime.fromisoformat(written):%Y-%m-%d %H:%M} UTC"


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _size(number: int | None) -> str:
    """Write a number of bytes as people read it."""
    if number is None:
        return ""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


def _plain(value: object) -> object:
    """Keep what others typed in from adding lines of its own."""
    return on_one_line(value) if isinstance(value, str) else value


_HTML = Environment(
    loader=PackageLoader("pricebook.notifications"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_HTML.filters.update(amount=_amount, per_cent=_per_cent, moment=_moment, number=_number, size=_size)
_TEXT = _HTML.overlay(autoescape=False, finalize=_plain)
