"""What every answer tells browsers."""

from typing import Final

# OWASP's recommendations for an API; a page that needs more sets its own.
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
# Over https alone (RFC 6797, section 7.2).
TRANSPORT_SECURITY: Final = (
    b"strict-transport-security",
    b"max-age=63072000; includeSubDomains",
)
