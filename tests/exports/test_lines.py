"""What stands in an export: every byte of CSV, the objects of JSON lines, for whom, and of what."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Text, column, delete, insert, select, values
from tests.conftest import PASSWORD

from pricebook.core.guarding import guard, needs_guard, unguard, unguarded
from pricebook.items.models import Item
from pricebook.users.models import User

COLUMNS = ["sku", "name", "description", "price", "currency", "tax_rate", "tags", "cost", "notes"]
AWKWARD = {
    "sku": '=A;"1"',
    "name": "Hammer, claw",
    "description": 'Says "so",\r\nand\nmore\r',
    "price": "12.5",
    "currency": "EUR",
    "tags": ["größe", "hand tools"],
    "cost": None,
    "notes": "",
}


@pytest.fixture
def export(api):
    """Return an export's answer."""

    async def read(user, what="items.csv", **params):
        reply = await api.as_(user).get(f"/v1/exports/{what}", params=params)
        assert reply.status_code == 200, reply.text
        return reply

    return read


def rows_of(reply, delimiter=","):
    text = reply.content.decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


async def test_a_line_is_exactly_so(export, editor, make_item):
    await make_item(**AWKWARD)
    reply = await export(editor)
    assert reply.content == (
        b"sku,name,description,price,currency,tax_rate,tags,cost,notes\r\n"
        b'"\'=A;""1""","Hammer, claw","Says ""so"",\r\nand\nmore\r",'
        b'12.5000,"EUR",10.500,"gr\xc3\xb6\xc3\x9fe;hand tools",,"\'"\r\n'
    )


async def test_unguarded_cells_are_as_they_are_and_empty_is_not_null(export, editor, make_item):
    await make_item(**AWKWARD)
    reply = await export(editor, guard="false")
    assert reply.content.endswith(
        b'"=A;""1""","Hammer, claw","Says ""so"",\r\nand\nmore\r",'
        b'12.5000,"EUR",10.500,"gr\xc3\xb6\xc3\x9fe;hand tools",,""\r\n'
    )


@pytest.mark.parametrize(("name", "sign"), [("comma", ","), ("semicolon", ";"), ("tab", "\t")])
@pytest.mark.parametrize("guarded", [True, False])
async def test_a_reader_gets_back_what_is_there(export, editor, make_item, name, sign, guarded):
    await make_item(**AWKWARD)
    reply = await export(editor, delimiter=name, guard=str(guarded).lower())
    (row,) = rows_of(reply, sign)
    texts = ("sku", "name", "description", "notes")
    found = {cell: unguard(row[cell]) if guarded else row[cell] for cell in texts}
    assert found == {cell: AWKWARD[cell] for cell in texts}
    assert row["tags"] == "größe;hand tools"
    assert row["cost"] == ""


async def test_a_byte_order_mark_comes_on_request(export, editor):
    assert (await export(editor, bom="true")).content.startswith(b"\xef\xbb\xbfsku,")
    assert (await export(editor)).content.startswith(b"sku,")


async def test_a_list_without_rows_is_a_head(export, editor):
    assert (await export(editor)).content == (",".join(COLUMNS) + "\r\n").encode()
    assert (await export(editor, "items.jsonl")).content == b""


async def test_viewers_get_no_internal_column_not_even_by_asking(api, export, viewer, make_item):
    await make_item(cost="7.25", notes="secret")
    reply = await export(viewer)
    assert reply.content.startswith(b"sku,name,description,price,currency,tax_rate,tags\r\n")
    assert b"secret" not in reply.content
    for what in ("items.csv", "items.jsonl"):
        assert b"secret" not in (await export(viewer, what)).content
        refused = await api.as_(viewer).get(f"/v1/exports/{what}", params={"fields": "sku,notes"})
        assert refused.status_code == 403
        assert refused.json()["errors"][0]["pointer"] == "query/fields/notes"


async def test_fields_choose_columns_in_their_own_order(export, editor, make_item):
    item = await make_item(sku="A")
    reply = await export(editor, fields="version,price,id")
    assert reply.text == f"id,price,version\r\n{item.id},12.5000,1\r\n"
    line = json.loads((await export(editor, "items.jsonl", fields="price,sku")).text)
    assert line == {"sku": "A", "price": "12.5000"}


async def test_lines_of_json_are_the_objects_of_the_list(api, export, viewer, editor, make_item):
    for sku in ("A", "B"):
        await make_item(**{**AWKWARD, "sku": sku})
    for reader in (viewer, editor):
        listed = (await api.as_(reader).get("/v1/items")).json()["items"]
        reply = await export(reader, "items.jsonl")
        assert [json.loads(line) for line in reply.text.split("\n")[:-1]] == listed
    listed = (await api.as_(editor).get("/v1/items")).text
    assert listed == f'{{"items":[{reply.text[:-1].replace(chr(10), ",")}],"next_cursor":null}}'


async def test_the_filters_of_the_list_choose_the_rows(api, export, editor, make_item):
    await make_item(sku="A", name="Claw hammer", tags=["hand", "tools"], price="5")
    await make_item(sku="B", name="Mallet", tags=["tools"], currency="CHF")
    for params in (
        {"q": "hammer"},
        {"tag": ["tools", "hand"]},
        {"price_min": "6"},
        {"price_max": "6"},
        {"currency": "CHF"},
        {"updated_since": "2001-01-01T00:00:00Z"},
        {"updated_since": "2999-01-01T00:00:00Z"},
    ):
        listed = (await api.as_(editor).get("/v1/items", params=params)).json()["items"]
        rows = rows_of(await export(editor, **params))
        assert [row["sku"] for row in rows] == [item["sku"] for item in listed], params


async def test_users_are_for_admins_and_have_no_hash(api, export, admin, editor):
    assert (await api.as_(editor).get("/v1/exports/users.csv")).status_code == 403
    reply = await export(admin, "users.csv")
    rows = {row["id"]: row for row in rows_of(reply)}
    assert rows[str(editor.id)]["email"] == editor.email
    assert set(rows[str(editor.id)]) == {
        *("id", "email", "name", "role", "email_verified_at"),
        *("disabled_at", "created_at", "updated_at"),
    }
    lines = (await export(admin, "users.jsonl")).text
    listed = (await api.as_(admin).get("/v1/users")).json()["items"]
    assert [json.loads(line) for line in lines.splitlines()] == listed
    for said in (reply.text, lines):
        assert admin.hashed_password not in said
        assert PASSWORD not in said
    found = await export(admin, "users.csv", q=editor.email, fields="role,email")
    assert found.text == f'email,role\r\n"{editor.email}","editor"\r\n'


@pytest.mark.parametrize("what", ["items.csv", "items.jsonl", "users.csv", "users.jsonl"])
@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"unknown": "x"}, "query/unknown"),
        ({"limit": "5"}, "query/limit"),
        ({"fields": "sku,hashed_password"}, "query/fields/"),
        ({"fields": "A b"}, "query/fields"),
        ({"count": "about"}, "query/count"),
        ({"delimiter": "|"}, "query/delimiter"),
        ({"guard": "perhaps"}, "query/guard"),
        ({"q": "a\0b"}, "query/q"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else None,
)
async def test_what_cannot_be_asked_is_refused_by_name(api, admin, what, params, pointer):
    reply = await api.as_(admin).get(f"/v1/exports/{what}", params=params)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"].startswith(pointer)


ANY = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.text(st.sampled_from("ab=+-@\t\r\n'\",;ä€😀 0A") | ANY, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS | st.none(), min_size=1, max_size=30), data=st.data())
async def test_what_went_out_comes_back(export, editor, session, texts, data):
    await session.execute(delete(Item))
    new = [
        {"sku": f"S{number:03}", "name": "x", "description": text, "price": 1, "currency": "EUR"}
        for number, text in enumerate(texts)
    ]
    await session.execute(insert(Item), new)
    await session.commit()
    form = {
        "delimiter": data.draw(st.sampled_from(["comma", "semicolon", "tab"])),
        "bom": data.draw(st.sampled_from(["true", "false"])),
    }
    sign = {"comma": ",", "semicolon": ";", "tab": "\t"}[form["delimiter"]]
    for guarded in (True, False):
        params = {"fields": "sku,description", "guard": str(guarded).lower(), **form}
        rows = rows_of(await export(editor, **params), sign)
        found = {row["sku"]: row["description"] for row in rows}
        assert len(found) == len(texts)
        for number, text in enumerate(texts):
            cell = found[f"S{number:03}"]
            assert (unguard(cell) if guarded else cell) == (text or "")
            assert guarded is False or text is None or cell == guard(text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=50))
async def test_postgresql_guards_as_python_does(session, texts):
    rows = values(column("text", Text()), name="given").data([(text,) for text in texts])
    text = rows.c.text
    found = (await session.execute(select(text, needs_guard(text), unguarded(text)))).all()
    assert [tuple(row) for row in found] == [
        (text, guard(text) != text, unguard(text)) for text in texts
    ]


@pytest.mark.parametrize(
    ("tags", "cell"),
    [
        ([], '"\'"'),
        (["=1", "b"], '"\'=1;b"'),
        (["b", "=1"], '"b;=1"'),
        (["-"], '"\'-"'),
        (["'x"], "\"''x\""),
        (["7"], '"7"'),
        # No client can send an empty tag; what is in the table all the same comes back as it is.
        (["", "=x"], '";=x"'),
    ],
)
async def test_joined_tags_are_guarded_as_one_cell(export, editor, make_item, tags, cell):
    await make_item(tags=tags)
    assert (await export(editor, fields="tags")).text == f"tags\r\n{cell}\r\n"


async def test_a_moment_in_a_cell_is_the_one_of_the_list(api, export, admin, session):
    user = await session.get(User, admin.id)
    user.email_verified_at = datetime(2026, 1, 31, 9, tzinfo=UTC)
    await session.commit()
    (row,) = rows_of(await export(admin, "users.csv", q=admin.email))
    (listed,) = (await api.as_(admin).get("/v1/users", params={"q": admin.email})).json()["items"]
    for name in ("email_verified_at", "created_at"):
        assert row[name] == listed[name]
    assert row["email_verified_at"] == "2026-01-31T09:00:00Z"
