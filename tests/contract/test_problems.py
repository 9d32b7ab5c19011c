"""Every error is a problem (RFC 9457) with its request id, and repeats nothing that was sent."""

import json
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text
from tests.contract.operations import OPERATIONS, whole_item

from pricebook.core.browser_headers import SECURITY_HEADERS

MARK = "Zanzibar-7f3a"


def assert_problem(reply: httpx2.Response, status: int, slug: str) -> None:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["type"] == f"/problems/{slug}"
    assert problem["title"]
    assert problem["status"] == status
    assert problem["detail"].endswith((".", "…"))
    assert problem["request_id"] == reply.headers["x-request-id"]
    # A refusal may name the part that it is about; 422 always does.
    assert "errors" in problem if status == 422 else status in {404, 409} or "errors" not in problem
    assert MARK not in reply.text
    for name, value in SECURITY_HEADERS:
        assert reply.headers[name.decode()] == value.decode()


async def test_400_for_a_body_that_is_not_json(api, editor):
    for content in (b"{", b'{"a": NaN}', b'{"a": ' + b"9" * 5_000 + b"}", b'{"a": 1e999}', b"\xff"):
        headers = {"Content-Type": "application/json"}
        reply = await api.as_(editor).post("/v1/items", content=content, headers=headers)
        assert reply.status_code == 400
        slug = reply.json()["type"].rpartition("/")[2]
        assert_problem(reply, 400, slug)


async def test_401_names_the_scheme(api, editor):
    reply = await api.get("/v1/items")
    assert_problem(reply, 401, "credentials-missing")
    assert reply.headers["www-authenticate"] == "Bearer"
    reply = await api.with_token(MARK).get("/v1/items")
    assert_problem(reply, 401, "credentials-invalid")
    assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_403_for_a_role_that_does_not_reach(api, viewer):
    reply = await api.as_(viewer).post("/v1/items", json=whole_item(None))
    assert_problem(reply, 403, "role-insufficient")
    assert_problem(await api.as_(viewer).get("/v1/users"), 403, "role-insufficient")


async def test_404_for_what_is_not_there(api, viewer):
    assert_problem(await api.get(f"/{MARK}"), 404, "not-found")
    assert_problem(await api.get(f"/v1/{MARK}"), 404, "not-found")
    assert_problem(await api.as_(viewer).get(f"/v1/items/{uuid4()}"), 404, "item-not-found")
    assert_problem(await api.get(f"/assets/{MARK}.js"), 404, "not-found")


def methods_of(path: str) -> set[str]:
    methods = {one.method for one in OPERATIONS.values() if one.path == path}
    return methods | {"HEAD"} if "GET" in methods else methods


@pytest.mark.parametrize("path", sorted({one.path for one in OPERATIONS.values()}))
async def test_405_names_the_methods_that_there_are(path, api, make_user, make_things):
    things = await make_things(await make_user())
    url = path.format_map(things.path_values)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - methods_of(path):
        reply = await api.request(method, url)
        assert_problem(reply, 405, "method-not-allowed")
        assert set(reply.headers["allow"].split(", ")) == methods_of(path)


async def test_409_for_an_sku_that_is_taken(api, editor, make_item):
    item = await make_item(sku=MARK)
    body = {**whole_item(None), "sku": item.sku}
    assert_problem(await api.as_(editor).post("/v1/items", json=body), 409, "sku-taken")


async def test_412_for_a_stale_version(api, editor, make_item):
    item = await make_item()
    reply = await api.as_(editor).delete(f"/v1/items/{item.id}", headers={"If-Match": f'"{MARK}"'})
    assert_problem(reply, 412, "precondition-failed")


async def test_413_for_too_large_a_body(api, editor):
    reply = await api.as_(editor).post("/v1/items", content=b"x" * 5_000_000)
    assert_problem(reply, 413, "too-large")

    async def pieces():
        for _ in range(50):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/json"}
    for path in ("/v1/items", "/v1/items/batch"):
        reply = await api.as_(editor).post(path, content=pieces(), headers=headers)
        assert "content-length" not in reply.request.headers
        assert_problem(reply, 413, "too-large")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_415_for_a_body_of_another_type(headers, api, editor):
    content = json.dumps(whole_item(None)).encode()
    reply = await api.as_(editor).post("/v1/items", content=content, headers=headers)
    assert_problem(reply, 415, "unsupported-media-type")


async def test_415_for_json_where_a_form_is_read(api):
    reply = await api.post("/v1/auth/token", json={"username": MARK, "password": MARK})
    assert_problem(reply, 415, "unsupported-media-type")


async def test_422_points_at_each_invalid_part(api, editor):
    body = {"name": MARK * 100, "price": "-1", "currency": MARK, "tags": ["a", 5], "a/b~c": MARK}
    reply = await api.as_(editor).post("/v1/items", json=body)
    assert_problem(reply, 422, "request-invalid")
    pointers = {error["pointer"] for error in reply.json()["errors"]}
    assert pointers == {"/sku", "/name", "/price", "/currency", "/tags/1", "/a~1b~0c"}
    reply = await api.as_(editor).get("/v1/items", params={"limit": MARK, "sort": MARK})
    assert_problem(reply, 422, "request-invalid")
    assert {one["pointer"] for one in reply.json()["errors"]} == {"query/limit", "query/sort"}


async def test_422_in_a_batch_leads_to_the_operation(api, editor):
    operations = [{"op": "create", "item": {**whole_item(None), "price": MARK}}, {"op": MARK}]
    reply = await api.as_(editor).post("/v1/items/batch", json={"operations": operations})
    assert_problem(reply, 422, "request-invalid")
    pointers = {error["pointer"] for error in reply.json()["errors"]}
    assert pointers == {"/operations/0/item/price", "/operations/1"}


async def test_500_tells_nothing_but_the_request_id(api, viewer, database):
    """A real fault: the table is not what the code takes it to be."""
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE items RENAME TO items_elsewhere"))
    try:
        reply = await api.as_(viewer).get("/v1/items", params={"q": MARK})
    finally:
        async with database.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE items_elsewhere RENAME TO items"))
    assert_problem(reply, 500, "internal-error")
    assert "items_elsewhere" not in reply.text
    assert (await api.as_(viewer).get("/v1/items")).status_code == 200
