"""Values that break programs, in every field, path and query parameter: refused, never a fault."""

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from tests.contract.operations import BODIES, DOCUMENT, FORMS, OPERATIONS, valid_request

# As they stand in the text of a JSON document.
IN_JSON = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "float overflow": "1e400",
    "million digits": "1E+1000000",
    "billion digits": "1E+999999999",
    "million places": "1E-1000000",
    "2**63": str(2**63),
    "-2**63-1": str(-(2**63) - 1),
    "5,000 digits": "9" * 5_000,
    "NUL": r'"\u0000"',
    "lone surrogate": r'"\ud800"',
    "field named by a surrogate": r'{"\ud800": 1}',
    "1 MB string": '"' + "x" * 1_000_000 + '"',
    "100,000 deep": "[" * 100_000 + "]" * 100_000,
    "invalid UTF-8": b'"\xff\xfe"',
}

# As they stand, percent-encoded, in a path or query.
IN_URL = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "float overflow": "1e400",
    "million digits": "1E%2B1000000",
    "billion digits": "1E%2B999999999",
    "2**63": str(2**63),
    "5,000 digits": "9" * 5_000,
    "NUL": "%00",
    "lone surrogate": "%ED%A0%80",
    "invalid UTF-8": "%FF%FE",
    "line break": "%0D%0AX-Injected%3A%201",
    # The client sends no longer URL; a real server gets one of 1 MB in test_served.py.
    "long string": "x" * 60_000,
}

# Free text may well say "NaN"; a search for it finds nothing, and that is an answer.
TEXT_PARAMETERS = {"q", "tag"}
# A password may hold any character: it is hashed, never stored or shown.
PASSWORDS = {"current_password", "new_password", "password"}
MARK = "@@here@@"


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to every part of a JSON value, the value itself included."""
    yield ()
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield from ((key, *rest) for rest in places(part))


def left_out(name: str, body: dict[str, Any]) -> list[tuple[str]]:
    """Return the fields of the document that the example does not have."""
    content = OPERATIONS[name].spec["requestBody"]["content"]["application/json"]
    chosen = content["schema"]
    if "discriminator" in chosen:
        kind = body[chosen["discriminator"]["propertyName"]]
        chosen = {"$ref": chosen["discriminator"]["mapping"][kind]}
    schema = DOCUMENT["components"]["schemas"][chosen["$ref"].rpartition("/")[2]]
    return [(field,) for field in schema["properties"] if field not in body]


def replaced(value: Any, place: tuple[str | int, ...], new: Any) -> Any:
    if not place:
        return new
    copy = deepcopy(value)
    parent = copy
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = new
    return copy


def written(body: Any, place: tuple[str | int, ...], hostile: str | bytes) -> bytes:
    raw = hostile if isinstance(hostile, bytes) else hostile.encode()
    return json.dumps(replaced(body, place, MARK)).encode().replace(f'"{MARK}"'.encode(), raw)


def assert_refused(reply, told: str) -> None:
    assert 400 <= reply.status_code < 500, f"{told}: {reply.status_code} {reply.text[:300]}"
    assert reply.headers["content-type"] == "application/problem+json", told
    assert reply.json()["request_id"] == reply.headers["x-request-id"], told
    assert len(reply.content) < 50_000, f"{told}: the answer grows with the request"


@pytest.mark.parametrize("name", BODIES)
async def test_no_field_takes_a_hostile_value(name, api, admin, make_things, recorded):
    client = api.as_(admin)
    request = valid_request(OPERATIONS[name], await make_things(admin))
    body = request.pop("json")
    before = len(await recorded())
    for place in [*places(body), *left_out(name, body)]:
        for label, hostile in IN_JSON.items():
            if place and place[-1] in PASSWORDS and label == "NUL":
                continue
            content = written(body, place, hostile)
            headers = {"Content-Type": "application/json"}
            reply = await client.request(**request, content=content, headers=headers)
            assert_refused(reply, f"{label} at {place}")
    assert len(await recorded()) == before


@pytest.mark.parametrize("name", FORMS)
async def test_no_form_field_takes_a_hostile_value(name, api, admin, make_things):
    request = valid_request(OPERATIONS[name], await make_things(admin))
    form = request.pop("data")
    for field in form:
        others = "&".join(f"{key}={quote(value)}" for key, value in form.items() if key != field)
        for label, hostile in IN_URL.items():
            content = f"{others}&{field}={hostile}"
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            reply = await api.request(**request, content=content, headers=headers)
            assert_refused(reply, f"{label} in {field}")


def parameters(kind: str) -> list[tuple[str, str]]:
    return [
        (operation.id, parameter["name"])
        for operation in OPERATIONS.values()
        for parameter in operation.spec.get("parameters", ())
        if parameter["in"] == kind
    ]


@pytest.mark.parametrize(("name", "parameter"), parameters("path"))
async def test_no_path_takes_a_hostile_value(name, parameter, api, admin, make_things, recorded):
    client = api.as_(admin)
    operation = OPERATIONS[name]
    things = await make_things(admin)
    request = valid_request(operation, things)
    before = len(await recorded())
    for label, hostile in IN_URL.items():
        values = {**things.path_values, parameter: hostile}
        request["url"] = operation.path.format_map(values)
        reply = await client.request(**request)
        if parameter in TEXT_PARAMETERS and reply.is_success:
            continue
        assert_refused(reply, f"{label} in {parameter}")
    assert len(await recorded()) == before


@pytest.mark.parametrize(("name", "parameter"), parameters("query"))
async def test_no_query_takes_a_hostile_value(name, parameter, api, admin, make_things):
    client = api.as_(admin)
    request = valid_request(OPERATIONS[name], await make_things(admin))
    given = request.pop("params")
    for label, hostile in IN_URL.items():
        rest = "".join(f"&{key}={value}" for key, value in given.items() if key != parameter)
        reply = await client.request(
            request["method"], f"{request['url']}?{parameter}={hostile}{rest}"
        )
        if parameter in TEXT_PARAMETERS and reply.is_success:
            continue
        assert_refused(reply, f"{label} in {parameter}")


@pytest.mark.parametrize(("name", "parameter"), parameters("header"))
async def test_no_header_takes_a_hostile_value(name, parameter, api, admin, make_things):
    client = api.as_(admin)
    operation = OPERATIONS[name]
    for hostile in (b"\xff\xfe", b"\xed\xa0\x80", b'"' * 5_000, b"x" * 100_000, b"\x01"):
        request = valid_request(operation, await make_things(admin))
        request["headers"] = {**request.get("headers", {}), parameter: hostile}
        reply = await client.request(**request)
        assert reply.status_code < 500, f"{hostile[:20]!r}: {reply.text[:300]}"


LISTS = [name for name, parameter in parameters("query") if parameter == "cursor"]


@pytest.mark.parametrize("name", LISTS)
async def test_no_forged_cursor_does_harm(name, api, admin, make_user, make_things):
    client = api.as_(admin)
    await make_things(admin)
    await make_things(await make_user())
    things = await make_things(admin)
    path = OPERATIONS[name].path.format_map(things.path_values)
    first = await client.get(path, params={"limit": 1})
    cursor = first.json()["next_cursor"]
    assert cursor, "there must be a second page"
    values = orjson.loads(base64.urlsafe_b64decode(cursor + "=="))
    for place in places(values):
        for forged in (None, True, 2**63, 1e300, "", "\x00", "NaN", "x" * 500, [], {}, [[]]):
            text = orjson.dumps(replaced(values, place, forged))
            forgery = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
            reply = await client.get(path, params={"limit": 1, "cursor": forgery})
            assert reply.status_code < 500, f"{forged!r} at {place}: {reply.text}"
            if reply.is_error:
                assert_refused(reply, f"{forged!r} at {place}")
