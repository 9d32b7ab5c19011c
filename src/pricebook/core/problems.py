"""Every error as RFC 9457 `application/problem+json`: the one place that turns kinds into HTTP."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from pricebook.core.context import current_context
from pricebook.core.errors import (
    Invalid,
    Malformed,
    PricebookError,
    UnsupportedMediaType,
)
from pricebook.core.idempotency import AnswerRepeated
from pricebook.core.route_table import RouteTable

MEDIA_TYPE = "application/problem+json"
_POINTER_LENGTH = 200
_DETAIL_LENGTH = 500
# RFC 3986, section 3.4; and the sign of what is quoted already.
_QUERY_CHARACTERS = "!$&'()*+,;=:@/?-._~%"


class FieldProblem(BaseModel):
    """What is wrong with one part of the request."""

    pointer: str = Field(
        description="A JSON Pointer into the body, or `query/…`, `path/…`, `header/…`."
    )
    detail: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="A stable name for this kind of problem.")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = Field(None, description="With 422: each invalid part.")


class InternalError(PricebookError):
    """Something failed on our side; nothing was changed. The request id leads to the cause."""


class BodyUnreadable(Malformed):
    """The body could not be parsed."""


class RequestInvalid(Invalid):
    """Part of the request is not valid; see errors."""


def install_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(PricebookError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(AnswerRepeated, _repeated)


def problem(error: PricebookError, errors: Sequence[Mapping[str, str]] | None = None) -> Response:
    """Return the answer that tells of `error`."""
    return _problem(
        error.slug(),
        title=error.title(),
        status=error.status,
        detail=str(error),
        errors=errors,
        headers=error.headers(),
    )


def _problem(  # noqa: PLR0913 -- the members of a problem
    slug: str,
    *,
    title: str,
    status: int,
    detail: str,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    context = current_context()
    body: dict[str, Any] = {
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": context.request_id if context else "",
    }
    if errors is not None:
        body["errors"] = errors
    return Response(
        orjson.dumps(body),
        status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PricebookError)  # noqa: S101 -- it is registered for this class alone
    if error.pointer or isinstance(error, Invalid):
        return problem(error, [{"pointer": error.pointer, "detail": str(error)}])
    return problem(error)


async def _repeated(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AnswerRepeated)  # noqa: S101 -- it is registered for this class alone
    return error.response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- likewise
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problem(BodyUnreadable())
    if _is_of_wrong_type(request, error):
        return problem(UnsupportedMediaType())
    return problem(RequestInvalid(), [_field_problem(one, error.body) for one in found])


def _is_of_wrong_type(request: Request, error: RequestValidationError) -> bool:
    """Whether the body is not of the media type that the route reads."""
    if not any(one["loc"][:1] == ("body",) for one in error.errors()):
        return False
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    if field is not None and isinstance(field.field_info, Form):
        return sent not in {"application/x-www-form-urlencoded", "multipart/form-data"}
    return isinstance(error.body, bytes) and not sent.endswith(("/json", "+json"))


def _field_problem(found: Mapping[str, Any], body: object) -> dict[str, str]:
    place, *parts = found["loc"]
    if place == "body":
        pointer = "".join(f"/{_escape(part)}" for part in _path_in(body, parts))
    else:
        pointer = "/".join(str(part) for part in (place, *parts))
    return {
        "pointer": _sayable(pointer)[:_POINTER_LENGTH],
        "detail": _detail(found)[:_DETAIL_LENGTH],
    }


def _detail(found: Mapping[str, Any]) -> str:
    """Say what is wrong, in pydantic's words where they do not repeat the input."""
    if found["type"] == "union_tag_invalid":
        return f"Input should be one of {found['ctx']['expected_tags']}"
    message: str = found["msg"]
    return message.removeprefix("Value error, ")


def _path_in(body: object, parts: Sequence[str | int]) -> list[str | int]:
    """Keep the parts that lead through the body; pydantic adds the names of union members."""
    path: list[str | int] = []
    for number, part in enumerate(parts, start=1):
        inner = _step_into(body, part)
        if inner is _NOWHERE and number < len(parts):
            continue
        body = inner
        path.append(part)
    return path


_NOWHERE = object()


def _step_into(body: object, part: str | int) -> object:
    if isinstance(body, dict) and part in body:
        return body[part]
    if isinstance(body, list) and isinstance(part, int) and part < len(body):
        return body[part]
    return _NOWHERE


def _sayable(pointer: str) -> str:
    """Replace what UTF-8 has no form for: a field's name may be half of a surrogate pair."""
    return pointer.encode(errors="replace").decode()


def _escape(part: str | int) -> str:
    """RFC 6901, section 3."""
    return str(part).replace("~", "~0").replace("/", "~1")


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    """Answer what FastAPI and Starlette themselves refuse."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- it is registered for this class alone
    if isinstance(error.__cause__, PricebookError):
        return problem(error.__cause__)
    headers = dict(error.headers or {})
    table: RouteTable = request.app.state.route_table
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if error.status_code == HTTPStatus.NOT_FOUND and table.knows(f"/v1{path}"):
        return _moved(request, path)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(table.methods(path))
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return problem(BodyUnreadable())
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    detail = f"{status.description or status.phrase}."
    return _problem(slug, title=status.phrase, status=status.value, detail=detail, headers=headers)


def _moved(request: Request, path: str) -> Response:
    """The same path under /v1, method and body kept (RFC 9110, section 15.4.9)."""
    location = f"{request.scope.get('root_path', '')}/v1{quote(path)}"
    if query := request.scope["query_string"]:
        location += "?" + quote(query, safe=_QUERY_CHARACTERS)
    return Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": location})
