"""The one page that a mail leads to, for people whose mail program does not unsubscribe itself."""

import base64
from hashlib import sha256
from string import Template
from typing import Final

from pricebook.notifications.kinds import Kind

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem;"
    "color:#1c2430;background:#fff}h1{font-size:1.4rem}"
    "button{font:inherit;font-weight:600;padding:.7rem 1.2rem;border:0;border-radius:6px;"
    "color:#fff;background:#0b5cad;cursor:pointer}"
)
_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()

POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What the page may do: show its own style, and be sent back."""

_PAGE = Template(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>$title</title>\n<style>{_STYLE}</style>\n</head>\n"
    "<body>\n<main>\n<h1>$title</h1>\n$content\n</main>\n</body>\n</html>\n"
)
_ABOUT = {
    Kind.PRICE_CHANGED: "changed prices",
    Kind.JOB_FINISHED: "imports and exports that have ended",
    Kind.WEBHOOK_TROUBLE: "webhooks in trouble",
    Kind.SECURITY: "the safety of your account",
}


def asking(kind: Kind) -> str:
    """Return the page that asks; only its button changes anything, since programs follow links."""
    return _PAGE.substitute(
        title="Unsubscribe?",
        content=f"<p>You will get no more mail from Pricebook about {_ABOUT[kind]}.</p>\n"
        '<form method="post"><button>Unsubscribe</button></form>',
    )


def confirming(kind: Kind) -> str:
    """Return the page that says that it is done."""
    return _PAGE.substitute(
        title="Done",
        content=f"<p>You get no more mail from Pricebook about {_ABOUT[kind]}. "
        "In your notification preferences you can have it back.</p>",
    )
