"""The HTML pages of this slice, and which form of an answer a client would rather have."""

from html import escape
from pathlib import Path
from string import Template
from typing import Final

from pricebook.core.security import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH
from pricebook.system.schemas import Health

STATIC: Final = Path(__file__).parent / "static"

# What the pages load comes from this server alone. Swagger UI draws its icons from data: URLs.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ROW = Template(
    '<tr class="$status"><th scope="row">$name</th><td>$status</td><td>$detail</td></tr>'
)


def health_page(health: Health) -> str:
    """Return the state of the service for people."""
    page = Template((STATIC / "health.html").read_text(encoding="utf-8"))
    rows = [
        _ROW.substitute(
            name=escape(part.name), status=part.status.value, detail=escape(part.detail)
        )
        for part in health.parts
    ]
    return page.substitute(status=health.status.value, rows="\n".join(rows))


def docs_page() -> str:
    """Return the page that shows the API document."""
    return (STATIC / "docs.html").read_text(encoding="utf-8")


def password_reset_page() -> str:
    """Return the page that the link of a mail leads to, for a new password."""
    page = Template((STATIC / "reset-password.html").read_text(encoding="utf-8"))
    return page.substitute(min_length=MIN_PASSWORD_LENGTH, max_length=MAX_PASSWORD_LENGTH)


def email_verification_page() -> str:
    """Return the page that the link of a mail leads to, to prove the address."""
    return (STATIC / "verify-email.html").read_text(encoding="utf-8")


def prefers_html(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, section 12.5.1) rates HTML above JSON."""
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, wanted: str) -> float:
    """Return the weight of a media type: that of the most exact range that covers it."""
    ranges = dict(_weighed(one) for one in accept.lower().split(",") if one.strip())
    for candidate in (wanted, wanted.partition("/")[0] + "/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0


def _weighed(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip() for piece in part.split(";"))
    weights = [one[2:] for one in parameters if one.startswith("q=")]
    try:
        return media_type, float(weights[0]) if weights else 1.0
    except ValueError:
        return media_type, 0.0
