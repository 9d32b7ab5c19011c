"""Input that no honest client sends: refused as a problem, and never a failure of ours."""

import json
from base64 import urlsafe_b64encode

import pytest

ITEM = {"name": "Hammer", "price": "12.5", "currency": "EUR"}
JSON = {"Content-Type": "application/json"}
# As they stand in the body, since most of them cannot be made by a JSON library.
TOKENS = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "1e400": "1e400",
    "1E+1000000": "1E+1000000",
    "1E-1000000": "1E-1000000",
    "1E+999999999999": "1E+999999999999",
    "NUL": r'"\u0000"',
    "a lone surrogate": r'"\ud800"',
    "2**63": str(2**63),
    "a long integer": "9" * 5_000,
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "invalid UTF-8": b'"\xff\xfe"'.decode("latin-1"),
    "a long text": f'"{"x" * 1_000_000}"',
    "true": "true",
}
FIELDS = ["sku", "name", "description", "price", "currency", "tax_rate", "tags", "cost", "notes"]
NO_AMOUNTS = {
    "NaN": "NaN",
    "sNaN": "sNaN",
    "Infinity": "-Infinity",
    "1E+1000000": "1E+1000000",
    "1E-1000000": "1E-1000000",
    "a long integer": "9" * 5_000,
    "a long fraction": f"0.{'0' * 5_000}1",
    "nothing": "",
    "two numbers": "1 2",
    "hexadecimal": "0x10",
    "a zero of 41 digits": "0" * 41,
}
PERCENT = {
    "NUL": "%00",
    "a lone surrogate": "%ED%A0%80",
    "invalid UTF-8": "%FF%FE",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e400": "1e400",
    "1E+1000000": "1E%2B1000000",
    "2**63": str(2**63),
    "a long integer": "9" * 5_000,
    "a long text": "x" * 50_000,
}


def body(field, token):
    """Write an item whose `field` is `token`; latin-1 keeps the bytes of what is not UTF-8."""
    item = json.dumps({"sku": "H-1", **ITEM, field: "TOKEN"})
    return item.replace('"TOKEN"', token).encode("latin-1")


def assert_refused(reply):
    assert 400 <= reply.status_code < 500, reply.text[:300]
    assert reply.headers["content-type"] == "application/problem+json"
    assert len(reply.content) < 5_000


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
async def test_hostile_values_in_a_body(api, editor, make_item, recorded, token):
    item = await make_item()
    writer, url = api.as_(editor), f"/v1/items/{item.id}"
    for field in [*FIELDS, "no_such_field"]:
        whole, part = body(field, token), f'{{"{field}": {token}}}'.encode("latin-1")
        assert_refused(await writer.post("/v1/items", content=whole, headers=JSON))
        assert_refused(await writer.put(url, content=whole, headers=JSON))
        assert_refused(await writer.put("/v1/items/by-sku/H-1", content=whole, headers=JSON))
        assert_refused(await writer.patch(url, content=part, headers=JSON))
    assert await recorded() == []


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
async def test_hostile_values_in_a_batch(api, editor, recorded, token):
    for operation in (
        '{"op": "create", "item": %s}',
        '{"op": "update", "id": %s, "changes": {}}',
        '{"op": "delete", "id": %s}',
        '{"op": %s}',
        "%s",
    ):
        sent = '{"operations": [%s]}' % operation.replace("%s", token)  # noqa: UP031 -- braces
        reply = await api.as_(editor).post(
            "/v1/items/batch", content=sent.encode("latin-1"), headers=JSON
        )
        assert_refused(reply)
    assert await recorded() == []


@pytest.mark.parametrize("value", NO_AMOUNTS.values(), ids=NO_AMOUNTS)
async def test_what_is_not_a_number_is_no_amount(api, editor, value):
    for field in ("price", "tax_rate", "cost"):
        new = {"sku": "H-1", **ITEM, field: value}
        reply = await api.as_(editor).post("/v1/items", json=new)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["pointer"] == f"/{field}"


async def test_hostile_names_of_fields(api, editor, make_item):
    item = await make_item()
    for name in (r"\u0000", r"\ud800", "x" * 100_000, "__proto__", "price/1", "", "~"):
        reply = await api.as_(editor).patch(
            f"/v1/items/{item.id}", content=f'{{"{name}": 1}}', headers=JSON
        )
        assert reply.status_code == 422
        assert_refused(reply)


@pytest.mark.parametrize("value", PERCENT.values(), ids=PERCENT)
async def test_hostile_values_in_a_path(api, editor, value):
    client = api.as_(editor)
    for path in ("/v1/items/{}", "/v1/items/{}/name", "/v1/items/{}/public"):
        assert_refused(await client.get(path.format(value)))
        assert_refused(await client.patch(path.format(value), json={"price": 1}))
    assert_refused(await client.get(f"/v1/items/by-sku/{value}"))


@pytest.mark.parametrize("value", PERCENT.values(), ids=PERCENT)
async def test_hostile_values_in_a_query(api, editor, make_item, value):
    item = await make_item()
    client = api.as_(editor)
    names = ("limit", "sort", "count", "price_min", "price_max", "currency", "updated_since")
    for name in (*names, "cursor", "fields", "no_such_name"):
        for path in ("/v1/items", "/v1/items/public"):
            reply = await client.get(f"{path}?{name}={value}")
            if name == "price_min" and reply.status_code == 200:
                assert reply.json()["items"] == []
            else:
                assert_refused(reply)
    assert_refused(await client.get(f"/v1/items/{item.id}?fields={value}"))
    assert_refused(await client.get(f"/v1/items/{item.id}?{value}=1"))
    for name in ("q", "tag"):
        reply = await client.get(f"/v1/items?{name}={value}")
        assert reply.status_code in {200, 422}
    assert (await client.get(f"/v1/items/suggest?q={value}")).status_code in {200, 422}


async def test_a_body_that_is_no_object(api, editor, make_item):
    item = await make_item()
    for sent in ("", "null", "[]", '"x"', "1", "{", '{"price": 1', '{"price": 01}', "\x00"):
        reply = await api.as_(editor).patch(f"/v1/items/{item.id}", content=sent, headers=JSON)
        assert_refused(reply)


async def test_hostile_cursors(api, viewer, make_item, session):
    for number in range(2):
        await make_item(name=f"N {number}")
    item_id = "01a20437-54eb-74f7-9cc2-0da9d3307bc5"
    for sort, value in (
        ("price", '"NaN"'),
        ("price", '"1E+1000000"'),
        ("price", "-1"),
        ("price", "true"),
        ("created_at", '"infinity"'),
        ("created_at", '"9999-12-31T23:59:59-14:00"'),
        ("created_at", "1e400"),
        ("name", r'"\u0000"'),
        ("name", r'"\ud800"'),
        ("name", "1"),
        ("sku", "null"),
        ("sku", "[" * 1_000 + "]" * 1_000),
    ):
        text = f'["{sort}",{value},"{item_id}"]'
        cursor = urlsafe_b64encode(text.encode()).decode().rstrip("=")
        reply = await api.as_(viewer).get("/v1/items", params={"sort": sort, "cursor": cursor})
        assert reply.status_code == 422, (sort, value)
        assert reply.json()["errors"][0]["pointer"] == "query/cursor"
