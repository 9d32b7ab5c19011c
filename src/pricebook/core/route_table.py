"""Which paths the application has, and which methods each takes."""

import re
from collections.abc import Iterable
from re import Pattern
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts

# What the router has a parameter be, as in {item_id:uuid}.
_CONVERTER = re.compile(r":\w+(?=})")


class _Entry(NamedTuple):
    path: str
    pattern: Pattern[str]
    methods: frozenset[str]
    endpoint: object


def _methods(methods: Iterable[str] | None) -> frozenset[str]:
    """Return what a route takes; one that names no method serves files."""
    own = frozenset(methods or ("GET",))
    # The middleware answers HEAD wherever there is a GET.
    return own | {"HEAD"} if "GET" in own else own


def _endpoint(route: RouteContext) -> object:
    """Return what the router leaves in the scope as what answers: a mounted application, too."""
    return route.endpoint or getattr(route.original_route, "app", None)


class RouteTable:
    """Every route, routers included; made once, when the application is."""

    def __init__(self, app: FastAPI) -> None:
        """Read the routes of `app`."""
        self._entries = [
            _Entry(route.path or "", route.path_regex, _methods(route.methods), _endpoint(route))
            for route in iter_route_contexts(app.routes)
            if getattr(route, "path_regex", None) is not None
        ]

    def templates(self) -> dict[object, str]:
        """Return the path of each route as the document has it, by what answers there."""
        return {entry.endpoint: _CONVERTER.sub("", entry.path) for entry in self._entries}

    def knows(self, path: str) -> bool:
        """Whether any route has this path."""
        return any(entry.pattern.match(path) for entry in self._entries)

    def methods(self, path: str) -> list[str]:
        """Return the methods of this path: all that its most exact template takes."""
        found = [entry for entry in self._entries if entry.pattern.match(path)]
        if not found:
            return []
        exact = min(found, key=lambda entry: entry.path.count("{")).path
        return sorted(set().union(*(entry.methods for entry in found if entry.path == exact)))
