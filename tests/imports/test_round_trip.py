"""What goes out comes in again: the same list, to the byte."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from tests.conftest import until
from tests.diamonds import read_diamonds

from pricebook.core.outbox import EventRecord
from pricebook.items.models import Item

pytestmark = pytest.mark.usefixtures("runner")

AWKWARD = [
    {"sku": "=1+1", "name": "@SUM(A1)", "description": "\t\ttabs", "notes": "-2"},
    {"sku": "'quoted", "name": "''twice", "description": "'=1", "notes": "'"},
    {"sku": '"', "name": 'a "quote", and a comma', "description": '"', "notes": ",;\t"},
    {"sku": "lines", "name": "x", "description": "one\ntwo\r\nthree\rfour\n", "notes": "\n"},
    {"sku": "null", "name": "x", "description": None, "notes": None, "cost": None},
    {"sku": "empty", "name": "x", "description": "", "notes": ""},
    {"sku": "NULL", "name": "\\N", "description": "\\.", "notes": "\\t\\\\"},
    {
        "sku": "Straße-😀-ñ",
        "name": "عربى e\u0301 \u200b",
        "description": "\ufeffmark",
        "notes": "¥",
    },
    {"sku": "dear", "name": "x", "price": "9999999999.9999", "cost": "0.0001", "tax_rate": "100"},
    {"sku": "00123", "name": "1e5", "description": " spaces ", "tax_rate": "0.125"},
    {"sku": "tags", "name": "x", "tags": ["=1", "'", "a,b", '"c"', "ä", "-"]},
    {"sku": "one tag", "name": "x", "tags": ["'=x"]},
    {"sku": "reason", "name": "line", "description": "sku,name,price"},
]

TEXT = st.text(
    st.one_of(
        st.sampled_from("'=+-@\t\r\n\"\\,; \u2028"),
        st.characters(codec="utf-8", exclude_characters="\x00"),
    ),
    max_size=12,
)
LINE = TEXT.map(lambda text: "".join(filter(str.isprintable, text)).strip()).filter(bool)
AMOUNT = st.decimals(0, Decimal("9999999999.9999"), places=4).map(str)
ITEM = st.fixed_dictionaries(
    {"sku": LINE, "name": LINE, "price": AMOUNT, "currency": st.sampled_from(["EUR", "JPY"])},
    optional={
        "description": st.none() | TEXT,
        "notes": st.none() | TEXT,
        "cost": st.none() | AMOUNT,
        "tax_rate": st.decimals(0, 100, places=3).map(str),
        "tags": st.lists(LINE.filter(lambda tag: ";" not in tag), max_size=3),
    },
)
LISTS = st.lists(ITEM, max_size=20, unique_by=lambda item: item["sku"])


@pytest.fixture
def client(api, editor):
    return api.as_(editor)


@pytest.fixture
def empty(database):
    async def delete_all():
        async with database.sessions.begin() as session:
            await session.execute(delete(Item))
            await session.execute(delete(EventRecord))

    return delete_all


async def test_an_awkward_list_goes_out_and_in_to_the_byte(client, empty):
    await add(client, [{"price": "1", "currency": "EUR", **item} for item in AWKWARD])
    await goes_round(client, empty)


@pytest.mark.parametrize("form", ["delimiter=semicolon", "delimiter=tab&bom=true"])
async def test_it_does_so_in_every_form(client, empty, form):
    await add(client, [{"price": "1", "currency": "EUR", **item} for item in AWKWARD])
    await goes_round(client, empty, form)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(items=LISTS)
async def test_any_list_goes_out_and_in_to_the_byte(client, empty, items):
    await empty()
    await add(client, items)
    await goes_round(client, empty)


async def test_an_unguarded_list_goes_round_as_well(client, empty):
    plain = [
        {**item, "description": item.get("description") or "x", "notes": "x"} for item in AWKWARD
    ]
    await add(client, [{"price": "1", "currency": "EUR", **item} for item in plain])
    before, file = await contents(client), await export(client, "guard=false")
    await empty()
    assert (await import_file(client, file, guarded="false"))["new"] == len(before)
    assert await contents(client) == before


async def test_a_list_that_has_not_changed_writes_nothing(client, items, recorded):
    await add(client, [{"price": "1", "currency": "EUR", **item} for item in AWKWARD])
    before, events = await items(), len(await recorded())
    found = await import_file(client, await export(client))
    assert (found["unchanged"], found["new"], found["changed"]) == (len(AWKWARD), 0, 0)
    after = await items()
    assert [(item.version, item.updated_at) for item in after.values()] == [
        (item.version, item.updated_at) for item in before.values()
    ]
    assert [event.type for event in (await recorded())[events:]] == ["job.finished"]


async def test_diamonds_come_in_by_one_import_and_go_out_by_one_export(client):
    diamonds = read_diamonds()
    rows = [{**item, "tags": ";".join(item["tags"])} for item in diamonds]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    found = await import_file(client, file.getvalue().encode(), seconds=120)
    assert (found["rows"], found["new"], found["refused"]) == (53_940, 53_940, 0)
    out = list(csv.DictReader(io.StringIO((await export(client)).decode(), newline="")))
    assert [row["sku"] for row in out] == [item["sku"] for item in diamonds]
    assert sum(Decimal(row["price"]) for row in out) == Decimal(212_135_217)
    for row, item in zip(out, diamonds, strict=True):
        assert (row["name"], row["description"]) == (item["name"], item["description"])
        assert row["tags"].split(";") == sorted(item["tags"])
    again = await import_file(client, await export(client), seconds=120)
    assert again["unchanged"] == 53_940


async def goes_round(client, empty, form=""):
    before, file = await contents(client), await export(client, form)
    await empty()
    found = await import_file(client, file)
    assert (found["new"], found["refused"]) == (len(before), 0)
    assert await contents(client) == before
    assert await export(client, form) == file


async def add(client, items):
    operations = [{"op": "create", "item": item} for item in items]
    if operations:
        reply = await client.post("/v1/items/batch", json={"operations": operations})
        assert reply.status_code == 200, reply.text


async def export(client, form=""):
    reply = await client.get(f"/v1/exports/items.csv?{form}")
    assert reply.status_code == 200, reply.text
    return reply.content


async def contents(client):
    """Return all that is to come back, whatever it is written in."""
    fields = "sku,name,description,price,currency,tax_rate,tags,cost,notes"
    reply = await client.get(f"/v1/items?limit=200&fields={fields}")
    return reply.json()["items"]


async def import_file(client, file, seconds=30, **params):
    reply = await client.post(
        "/v1/imports/items",
        params={"mode": "apply", **params},
        content=file,
        headers={"Content-Type": "text/csv"},
    )
    assert reply.status_code == 202, reply.text
    path = reply.headers["location"]

    async def is_over():
        return (await client.get(path)).json()["finished_at"]

    await until(is_over, seconds)
    job = (await client.get(path)).json()
    assert job["status"] == "succeeded", job
    return job["result"]
