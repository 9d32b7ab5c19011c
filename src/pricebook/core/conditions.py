"""Conditional requests: ETag, If-Match and If-None-Match (RFC 9110, sections 8.8.3 and 13)."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from pricebook.core.errors import PreconditionFailed, PreconditionRequired

_ENTITY_TAG = re.compile(r'(?:^|,)\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?=,|$)')


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the client says the resource must be, or must not be, for its request to count."""

    if_match: str | None = None
    if_none_match: str | None = None
    is_match_required: bool = False

    def check(self, *etags: str) -> None:
        """Let a change pass, or refuse it.

        `etags` are the strong entity tags that the resource answers to; none, if there is no
        resource yet.

        Raises:
            PreconditionFailed: It is not what the client takes it to be.
            PreconditionRequired: There is a resource, the service demands If-Match, none came.

        """
        if self.if_match is not None:
            if not _names(self.if_match, etags):
                raise PreconditionFailed
        elif self.is_match_required and etags:
            raise PreconditionRequired
        if self._excludes(etags):
            raise PreconditionFailed

    def is_met_by(self, etag: str) -> bool:
        """Whether the client has this representation already, so that 304 will do.

        Raises:
            PreconditionFailed: It wants one that is no longer there.

        """
        if self.if_match is not None and not _names(self.if_match, (etag,)):
            raise PreconditionFailed
        return self._excludes((etag,))

    def _excludes(self, etags: tuple[str, ...]) -> bool:
        header = self.if_none_match
        return header is not None and _names(header, etags, is_weak_enough=True)


def _names(header: str, etags: tuple[str, ...], *, is_weak_enough: bool = False) -> bool:
    """Whether a list of entity tags, or `*`, names one of `etags`; what is no tag names nothing.

    If-Match compares strongly (section 13.1.1): a weak tag names nothing. If-None-Match compares
    weakly (section 13.1.2).
    """
    if header.strip() == "*":
        return bool(etags)
    found = _ENTITY_TAG.findall(header)
    return any(tag in etags and (is_weak_enough or not weak) for weak, tag in found)


def conditions_of(request: Request) -> Conditions:
    """Read the conditions of a request."""
    headers = request.headers
    return Conditions(
        if_match=_joined(headers.getlist("if-match")),
        if_none_match=_joined(headers.getlist("if-none-match")),
        is_match_required=request.app.state.settings.http.require_if_match,
    )


def _joined(lines: list[str]) -> str | None:
    """Return the header's lines as one (section 5.3)."""
    return ", ".join(lines) if lines else None


async def _conditions(request: Request) -> Conditions:
    return conditions_of(request)


Guarded = Annotated[Conditions, Depends(_conditions)]


def _documented(name: str, description: str) -> dict[str, Any]:
    parameter = {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }
    return {"parameters": [parameter]}


TAKES_IF_MATCH = _documented("If-Match", "Change it only if its ETag is one of these; else 412.")
TAKES_IF_NONE_MATCH = _documented("If-None-Match", "Answer 304 if its ETag is one of these.")
