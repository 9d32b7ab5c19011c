"""The OpenAPI document: what FastAPI reads off the routes, with every refusal they can give."""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from pricebook.core.problems import MEDIA_TYPE, Problem

_SCHEMAS = "#/components/schemas/"
_RESPONSES = "#/components/responses/"
_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "minimum": 1}

# Status: its name in the document, what it says, and the headers that come with it.
_REFUSALS: Final[Mapping[int, tuple[str, str, dict[str, Any]]]] = {
    400: ("Malformed", "The request could not be read.", {}),
    401: ("Unauthenticated", "Valid credentials are needed.", {"WWW-Authenticate": _TEXT}),
    403: ("Forbidden", "The role, or the API key's scopes, do not allow this.", {}),
    404: ("NotFound", "There is no such thing.", {}),
    408: ("RequestTimeout", "The request took too long to arrive.", {}),
    409: ("Conflict", "The request does not fit the present state.", {}),
    412: ("PreconditionFailed", "It has changed since it was read.", {}),
    413: ("TooLarge", "The body is larger than allowed.", {}),
    415: ("UnsupportedMediaType", "The body is of a type not understood here.", {}),
    416: ("RangeNotSatisfiable", "The range begins past the end.", {"Content-Range": _TEXT}),
    422: ("Invalid", "Part of the request is not valid; see `errors`.", {}),
    428: ("PreconditionRequired", "An If-Match header is required here.", {}),
    429: ("TooManyRequests", "The rate limit is used up.", {"Retry-After": _SECONDS}),
    500: ("InternalError", "Something failed; nothing was changed.", {}),
    503: ("Unavailable", "Overloaded, or without its database.", {"Retry-After": _SECONDS}),
}

Operation = dict[str, Any]


class DocumentedApp(FastAPI):
    """An application whose document names the problems too."""

    _described: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        """Return the document; made once for as long as the routes stay the same."""
        document = super().openapi()
        if document is not self._described:
            _describe(document)
            self._described = document
        return document


def _describe(document: dict[str, Any]) -> None:
    """Complete the document in place."""
    components = document.setdefault("components", {})
    for server in document.get("servers", ()):
        _prefix_token_url(components, server["url"])
    schemas = components.setdefault("schemas", {})
    for path, method, operation in _operations(document):
        served = path.startswith("/v1/")
        statuses = set(_refusals(path, method, operation)) if served else set()
        _declare(operation, statuses)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(_problem_schemas())
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    components["responses"] = {
        name: _response(status, sentence) for status, (name, sentence, _) in _REFUSALS.items()
    }


def _prefix_token_url(components: dict[str, Any], root_path: str) -> None:
    """A page that logs in finds the way by this URL, and behind a proxy it has the prefix."""
    for scheme in components.get("securitySchemes", {}).values():
        for flow in scheme.get("flows", {}).values():
            flow["tokenUrl"] = root_path + flow["tokenUrl"]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _refusals(path: str, method: str, operation: Operation) -> Iterator[int]:
    """Tell from an operation's form how it may be refused; a slice adds what only it knows."""
    yield from (429, 500, 503)
    headers = {one["name"].lower() for one in operation.get("parameters", ()) if _is_header(one)}
    if operation.get("security"):
        yield from (401, 403)
    if "{" in path:
        yield 404
    if "requestBody" in operation:
        yield from (400, 413, 415)
    if "requestBody" in operation or operation.get("parameters"):
        yield 422
    if "if-match" in headers:
        yield from (412, 428)
    if method != "get":
        yield 409


def _is_header(parameter: Mapping[str, Any]) -> bool:
    return bool(parameter["in"] == "header")


def _declare(operation: Operation, statuses: set[int]) -> None:
    responses: dict[str, Any] = operation["responses"]
    for status in statuses | {int(code) for code in responses if code.isdigit()}:
        if status >= HTTPStatus.BAD_REQUEST and status in _REFUSALS:
            declared = responses.get(str(status), {}).get("description")
            responses[str(status)] = _reference(status, declared)
    operation["responses"] = dict(sorted(responses.items()))


def _reference(status: int, declared: str | None) -> dict[str, Any]:
    """Refer to the shared response, or say more exactly what a slice declared."""
    name, sentence, _ = _REFUSALS[status]
    usual = {HTTPStatus(status).phrase, "Validation Error", sentence, None}
    if declared in usual:
        return {"$ref": _RESPONSES + name}
    return _response(status, declared or sentence)


def _response(status: int, sentence: str) -> dict[str, Any]:
    name, _, headers = _REFUSALS[status]
    example = {
        "type": f"/problems/{re.sub('(?<=[a-z])(?=[A-Z])', '-', name).lower()}",
        "title": name,
        "status": status,
        "detail": sentence,
        "request_id": "7d3b1c0e9a5f4e21",
    }
    content = {"schema": {"$ref": f"{_SCHEMAS}Problem"}, "example": example}
    response: dict[str, Any] = {"description": sentence, "content": {MEDIA_TYPE: content}}
    if headers:
        response["headers"] = {name: {"schema": schema} for name, schema in headers.items()}
    return response


def _problem_schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization")
    return {**schema.pop("$defs"), "Problem": schema}
