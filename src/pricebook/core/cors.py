"""Which pages of other origins may call the API: those that the settings name, without cookies."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from pricebook.core.errors import Malformed
from pricebook.core.problems import problem

_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
)
_READ = (
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
    "X-Total-Count",
)


class PreflightRefused(Malformed):
    """This origin, method or header is not allowed from a page of another origin."""


class Cors(CORSMiddleware):
    """Starlette's, whose refusals are problems as everywhere else."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """Let pages of `origins` call `app`."""
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=[*_SENT, "X-Request-ID"],
            expose_headers=_READ,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer whether the real request may follow."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 300:  # noqa: PLR2004 -- where success ends
            return answer
        refusal = problem(PreflightRefused())
        refusal.headers["Vary"] = answer.headers["Vary"]
        return refusal
