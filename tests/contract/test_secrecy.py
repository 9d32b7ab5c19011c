"""What is internal or secret shows up nowhere that it should not; unknown fields change nothing."""

import csv
import json
import logging
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from tests.conftest import PASSWORD
from tests.contract.operations import BODIES, OPERATIONS, QUERIES, valid_request

from pricebook.core.settings import Settings
from pricebook.items.models import Item
from pricebook.users.models import User

COST, NOTES = "8765.4321", "canary-notes-5d1f"
INTERNAL = {"hashed_password", "token_digest", "credentials_epoch", "key_digest", "search_text"}
FOR_STAFF = {"cost", "notes"}


def names_in(value: Any) -> set[str]:
    """Return every field name in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def said(reply: httpx2.Response) -> Any:
    """Return the JSON of an answer, or of each event of a stream; a page or a log has none."""
    if reply.headers["content-type"].startswith(("text/html", "text/plain")):
        return None
    if reply.headers["content-type"].startswith("text/csv"):
        return list(csv.DictReader(reply.text.splitlines()))
    if reply.headers["content-type"] == "application/jsonl":
        return [json.loads(line) for line in reply.text.splitlines()]
    if reply.headers["content-type"].startswith("text/event-stream"):
        lines = reply.text.splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return reply.json()


READS = [one for one in OPERATIONS.values() if one.method == "GET" and one.path.startswith("/v1")]


@pytest.mark.parametrize("operation", READS, ids=lambda one: one.id)
async def test_internal_fields_are_for_staff_and_secrets_for_nobody(
    operation, api, viewer, editor, admin, make_things, session
):
    for reader, is_staff in ((viewer, False), (editor, True), (admin, True)):
        things = await make_things(reader)
        item = await session.get(Item, things.item_id)
        item.cost, item.notes = COST, NOTES
        await session.commit()
        request = valid_request(operation, things)
        for client in (api, api.as_(reader)):
            reply = await client.request(**request)
            shown = names_in(said(reply))
            assert shown.isdisjoint(INTERNAL)
            if client is api or not is_staff:
                assert shown.isdisjoint(FOR_STAFF)
                assert COST not in reply.text
                assert NOTES not in reply.text
            for secret in (PASSWORD, reader.hashed_password, api.tokens[reader.id]):
                assert secret not in reply.text


@pytest.mark.parametrize("field", sorted(FOR_STAFF))
async def test_a_viewer_gets_no_internal_field_by_asking_for_it(field, api, viewer, make_item):
    item = await make_item(cost=COST, notes=NOTES)
    for client, url in (
        (api.as_(viewer), f"/v1/items/{item.id}"),
        (api.as_(viewer), "/v1/items"),
        (api.as_(viewer), f"/v1/items/by-sku/{item.sku}"),
        (api, f"/v1/items/{item.id}/public"),
        (api, "/v1/items/public"),
    ):
        reply = await client.get(url, params={"fields": f"id,{field}"})
        assert reply.status_code in (200, 403, 422)
        assert COST not in reply.text
        assert NOTES not in reply.text


async def test_a_viewer_cannot_search_in_what_is_not_shown(api, viewer, make_item):
    await make_item(cost=COST, notes=NOTES)
    for path in ("/v1/items", "/v1/items/suggest", "/v1/items/public"):
        reply = await api.as_(viewer).get(path, params={"q": NOTES})
        assert reply.json()["items"] == []


async def snapshot(session) -> list[Any]:
    """Return every row of every table that requests change, but for marks of use."""
    tables = ("items", "users", "api_keys", "sessions", "events", "idempotency_keys")
    query = " UNION ALL ".join(
        f"SELECT '{name}', (to_jsonb(t) - 'last_used_at')::text FROM {name} t" for name in tables
    )
    rows = (await session.execute(text(query))).all()
    await session.commit()
    return sorted(map(tuple, rows))


UNKNOWN = ["unknown", "id", "version", "created_at", "hashed_password", "is_admin", "__class__"]


@pytest.mark.parametrize("name", BODIES)
async def test_a_field_that_nobody_knows_changes_nothing(name, api, admin, make_things, session):
    operation = OPERATIONS[name]
    things = await make_things(admin)
    before = await snapshot(session)
    for unknown in UNKNOWN:
        request = valid_request(operation, things)
        bodies = [request["json"]]
        if name == "change_many_items":
            first, second, *_ = request["json"]["operations"]
            bodies = [request["json"], first, first["item"], second["changes"]]
        for body in bodies:
            if unknown in body:
                continue
            body[unknown] = "x"
            reply = await api.as_(admin).request(**request)
            del body[unknown]
            assert reply.status_code == 422, reply.text
            assert any(one["pointer"].endswith(f"/{unknown}") for one in reply.json()["errors"])
    assert await snapshot(session) == before


@pytest.mark.parametrize("name", sorted({"list_items", "list_users", "list_sessions", *QUERIES}))
async def test_a_query_that_nobody_knows_is_refused(name, api, admin):
    params = {**QUERIES.get(name, {}), "unknown": "x"}
    reply = await api.as_(admin).get(OPERATIONS[name].path, params=params)
    assert reply.status_code == 422
    assert [one["pointer"] for one in reply.json()["errors"]] == ["query/unknown"]


async def test_events_hold_no_secret(api, admin, make_things, recorded):
    for name in BODIES:
        things = await make_things(admin)
        request = valid_request(OPERATIONS[name], things)
        await api.as_(admin).request(**request)
    events = [event.payload for event in await recorded()]
    assert len(events) >= len(BODIES) - 1
    text_of_all = json.dumps(events)
    for name in (*INTERNAL, *FOR_STAFF, "password"):
        assert f'"{name}":' not in text_of_all
    for secret in (PASSWORD, "a hammer and forty nails", "From the second supplier", "7.2500"):
        assert secret not in text_of_all


CANARY = "canary-4f9c2b7e1d-secret"


@pytest.fixture
def noisy(served):
    """Return what the real process has logged since, at the level DEBUG."""
    start = served.log.stat().st_size

    def read() -> str:
        with served.log.open(encoding="utf-8") as log:
            log.seek(start)
            return log.read()

    return read


async def test_canaries_in_every_input_appear_in_no_log_and_no_problem(
    served, noisy, api, admin, make_things
):
    things = await make_things(admin)
    token = api.tokens[admin.id]
    problems = []
    async with httpx2.AsyncClient(base_url=served.url) as client:
        for operation in OPERATIONS.values():
            request = valid_request(operation, things)
            for part in ("json", "data"):
                for field in request.get(part, ()):
                    changed = {**request, part: {**request[part], field: CANARY}}
                    headers = {"Authorization": f"Bearer {token}", "X-Secret": CANARY}
                    problems.append(await client.request(**changed, headers=headers))
            for header in ("Authorization", "Cookie", "If-Match", "Idempotency-Key", "User-Agent"):
                value = f"Bearer {CANARY}" if header == "Authorization" else CANARY
                changed = {**request, "headers": {**request.get("headers", {}), header: value}}
                problems.append(await client.request(**changed))
            request["params"] = {**request["params"], "token": CANARY}
            problems.append(await client.request(**request))
    for problem in problems:
        if problem.is_error:
            assert CANARY not in problem.text
            assert CANARY not in str(problem.headers)
    written = noisy()
    # The last line may be written after its answer has come.
    assert written.count('"event":"request"') >= len(problems) - 1
    for secret in (CANARY, token, PASSWORD):
        assert secret not in written


async def test_canaries_in_settings_appear_in_no_repr(settings: Settings):
    values = {
        "PRICEBOOK_DATABASE_URL": f"postgresql://pricebook:{CANARY}@db/pricebook",
        "PRICEBOOK_REDIS_URL": f"redis://:{CANARY}@valkey/0",
        "PRICEBOOK_ADMIN_PASSWORD": CANARY,
        "PRICEBOOK_SECRET_KEY": f"{CANARY}-of-32-letters-or-more,{CANARY}-the-one-before",
        "PRICEBOOK_MAIL__URL": f"smtp://pricebook:{CANARY}@mail:587",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in values.items():
            environment.setenv(name, value)
        loaded = Settings()
        for shown in (
            repr(loaded),
            str(loaded),
            str(loaded.model_dump()),
            loaded.model_dump_json(),
        ):
            assert CANARY not in shown
        wrong = {
            "PRICEBOOK_DATABASE_URL": (f"mysql://{CANARY}@db", "must begin with postgresql"),
            "PRICEBOOK_MAIL__URL": (f"http://{CANARY}@mail", "must begin with smtp"),
            "PRICEBOOK_SECRET_KEY": (CANARY, "must have 32 characters"),
        }
        for name, (value, complaint) in wrong.items():
            environment.setenv(name, value)
            with pytest.raises(ValueError, match=complaint) as refusal:
                Settings()
            assert CANARY not in str(refusal.value)
            environment.setenv(name, values[name])


async def test_a_fault_is_logged_without_what_the_request_held(served, noisy, api, admin, session):
    """A real fault, logged with its traceback: the table is not what the code takes it to be."""
    await session.execute(text("ALTER TABLE items RENAME TO items_elsewhere"))
    await session.commit()
    try:
        headers = {"Authorization": f"Bearer {api.tokens[admin.id]}"}
        async with httpx2.AsyncClient(base_url=served.url, headers=headers) as client:
            new = {"sku": CANARY, "name": CANARY, "price": "1", "currency": "EUR", "notes": CANARY}
            replies = [
                await client.post("/v1/items", json=new),
                await client.get("/v1/items", params={"q": CANARY}),
                await client.put(f"/v1/items/by-sku/{CANARY}", json=new),
            ]
    finally:
        await session.execute(text("ALTER TABLE items_elsewhere RENAME TO items"))
        await session.commit()
    assert [reply.status_code for reply in replies] == [500, 500, 500]
    for reply in replies:
        assert CANARY not in reply.text
    lines = [json.loads(line) for line in noisy().splitlines()]
    faults = [line for line in lines if line["event"] == "request failed"]
    assert len(faults) == 3
    for reply, fault in zip(replies, faults, strict=True):
        assert fault["request_id"] == reply.json()["request_id"]
        assert fault["user_id"] == str(admin.id)
        assert "UndefinedTableError" in fault["exception"]
        # The path holds the SKU, and a log without paths is of no use.
        assert CANARY not in repr({**fault, "path": ""})


def test_models_show_no_secret_when_printed():
    user = User(email="ann@example.com", name="Ann", role="viewer", hashed_password=CANARY)
    assert CANARY not in repr(user)
    assert logging.getLogger("sqlalchemy.engine").getEffectiveLevel() >= logging.WARNING
