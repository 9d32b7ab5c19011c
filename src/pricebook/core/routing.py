"""The route class of the API: exact numbers in JSON, and answers kept for an Idempotency-Key."""

import json
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, ClassVar, NoReturn

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from pricebook.core.errors import Malformed
from pricebook.core.idempotency import claim_key, keep_answer

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class NotJson(Malformed):
    """The body is not valid JSON."""


def _refuse_constant(_name: str) -> NoReturn:
    """RFC 8259, section 6: NaN and Infinity are not numbers."""
    raise NotJson


class NumberOutOfRange(Malformed):
    """A number in the body is larger or finer than any that is understood here."""


# A number may be told from its digits, but not written out: 1E+999999999 fills the memory.
_MOST_DIGITS = 400


def _exact(digits: str) -> Decimal:
    """Read a number that has a fraction or an exponent."""
    number = Decimal(digits)
    if len(digits) > _MOST_DIGITS or abs(number.adjusted()) > _MOST_DIGITS:
        raise NumberOutOfRange
    return number


class ExactRequest(Request):
    """A request whose JSON numbers keep every digit."""

    async def json(self) -> Any:  # noqa: ANN401 -- any JSON value
        """Parse the body; a fraction becomes a Decimal, never a float."""
        return json.loads(await self.body(), parse_float=_exact, parse_constant=_refuse_constant)


class Route(APIRoute):
    """A route of the API; a POST takes an Idempotency-Key."""

    reads_body: ClassVar[bool] = True

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 -- FastAPI's own options
        """Make the route, with what every route of its method needs."""
        if self.reads_body and "POST" in (options.get("methods") or ()):
            options["dependencies"] = [Depends(claim_key), *(options.get("dependencies") or ())]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler; what happens here is before the session's commit."""
        handle = super().get_route_handler()
        if self.body_field is None and "POST" not in (self.methods or ()):
            return handle

        async def handle_exactly(request: Request) -> Response:
            exact = ExactRequest(request.scope, request.receive)
            if self.reads_body and "idempotency-key" in exact.headers:
                # Read whole, so that a form can be both parsed and compared with its repeat.
                await exact.body()
            response = await handle(exact)
            await keep_answer(exact, response)
            return response

        return handle_exactly


class UploadRoute(Route):
    """A route whose POST streams its body, and claims the Idempotency-Key once it knows it."""

    reads_body = False


def resource(prefix: str, *tags: str, route_class: type[Route] = Route) -> APIRouter:
    """Return the router of one resource."""
    return APIRouter(prefix=prefix, tags=list(tags), route_class=route_class)
