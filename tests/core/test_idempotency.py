"""Idempotency-Key: whatever is sent twice happens once."""

import asyncio
import hashlib
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update

from pricebook.auth.models import ApiKey
from pricebook.core.idempotency import StoredAnswer, prune
from pricebook.items.models import Item

NEW = {"sku": "H-1", "name": "Hammer", "price": "12.50", "currency": "EUR"}


def keyed(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid4())}


@pytest.fixture
def count(database):
    async def count_rows(table) -> int:
        async with database.sessions() as fresh:
            return await fresh.scalar(select(func.count()).select_from(table))

    return count_rows


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(api, editor, count, recorded):
    key = keyed()
    first = await api.as_(editor).post("/v1/items", json=NEW, headers=key)
    second = await api.as_(editor).post("/v1/items", json=NEW, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    for name in ("location", "etag", "content-type"):
        assert second.headers[name] == first.headers[name]
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await count(Item) == 1
    assert len(await recorded()) == 1


async def test_100_at_once_make_one_row(api, editor, count, recorded):
    key, client = keyed(), api.as_(editor)
    replies = await asyncio.gather(
        *(client.post("/v1/items", json=NEW, headers=key) for _ in range(100))
    )
    statuses = {reply.status_code for reply in replies}
    assert 201 in statuses
    assert statuses <= {201, 409, 503}
    slugs = {reply.json()["type"] for reply in replies if reply.status_code == 409}
    assert slugs <= {"/problems/idempotency-key-in-use"}
    assert len({reply.content for reply in replies if reply.status_code == 201}) == 1
    assert await count(Item) == 1
    assert len(await recorded()) == 1


async def test_another_request_with_the_key_is_refused(api, editor, count):
    key, client = keyed(), api.as_(editor)
    await client.post("/v1/items", json=NEW, headers=key)
    for path, body in (
        ("/v1/items", {**NEW, "price": "13"}),
        ("/v1/items?x=1", NEW),
        ("/v1/items/batch", {"operations": [{"op": "create", "item": NEW}]}),
    ):
        reply = await client.post(path, json=body, headers=key)
        assert reply.status_code == 422
        assert reply.json()["type"] == "/problems/idempotency-key-reused"
    assert await count(Item) == 1


async def test_a_key_belongs_to_the_credential_that_sent_it(api, make_user, count):
    key = keyed()
    for number, user in enumerate([await make_user("editor"), await make_user("editor")]):
        body = {**NEW, "sku": f"H-{number}"}
        reply = await api.as_(user).post("/v1/items", json=body, headers=key)
        assert reply.status_code == 201
    assert await count(Item) == 2


async def test_one_still_under_way_is_409(api, editor, session):
    """The first request holds the key; it waits here for a row that someone else has locked."""
    client, key = api.as_(editor), keyed()
    await session.execute(text("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
    first = asyncio.create_task(client.post("/v1/items", json=NEW, headers=key))
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    while not await session.scalar(waiting):  # noqa: ASYNC110 -- PostgreSQL sets no Event
        await asyncio.sleep(0.01)
    second = await client.post("/v1/items", json=NEW, headers=key)
    assert second.status_code == 409
    assert second.json()["type"] == "/problems/idempotency-key-in-use"
    await session.rollback()
    assert (await first).status_code == 201


async def test_a_refused_request_leaves_the_key_free(api, editor, make_item, session):
    client, key = api.as_(editor), keyed()
    taken = await make_item(sku=NEW["sku"])
    assert (await client.post("/v1/items", json=NEW, headers=key)).status_code == 409
    await session.delete(taken)
    await session.commit()
    assert (await client.post("/v1/items", json=NEW, headers=key)).status_code == 201


async def test_a_failed_commit_leaves_neither_row_nor_answer(api, editor, session, count, recorded):
    """The crash before the answer: what was flushed is gone, the key is free, the repeat works."""
    client, key = api.as_(editor), keyed()
    await session.execute(
        text(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'crash at commit'; END $$"
        )
    )
    await session.execute(
        text(
            "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON idempotency_keys "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
        )
    )
    await session.commit()
    try:
        assert (await client.post("/v1/items", json=NEW, headers=key)).status_code == 500
        assert (await count(Item), await count(StoredAnswer)) == (0, 0)
        assert await recorded() == []
    finally:
        await session.execute(text("DROP TRIGGER fail ON idempotency_keys"))
        await session.execute(text("DROP FUNCTION fail"))
        await session.commit()
    reply = await client.post("/v1/items", json=NEW, headers=key)
    assert (reply.status_code, await count(Item)) == (201, 1)


async def test_what_is_shown_once_can_be_repeated_but_not_read_in_a_dump(api, viewer, session):
    client, key = api.as_(viewer), keyed()
    new = {"name": "The till", "scopes": ["items:read"]}
    first = await client.post("/v1/api-keys", json=new, headers=key)
    secret = first.json()["key"]
    second = await client.post("/v1/api-keys", json=new, headers=key)
    assert second.json()["key"] == secret
    assert await session.scalar(select(func.count()).select_from(ApiKey)) == 1
    (stored,) = await session.scalars(select(StoredAnswer))
    columns = StoredAnswer.__table__.columns
    dump = b"|".join(repr(getattr(stored, column.name)).encode() for column in columns)
    for readable in (secret, key["Idempotency-Key"], api.tokens[viewer.id], "The till"):
        assert readable.encode() not in dump


async def test_a_dump_does_not_let_anyone_guess_at_what_was_sent(api, admin, session):
    """A plain digest of a body with a password in it could be tried out at great speed."""
    new = {"email": "ann@example.com", "name": "Ann", "password": "four old hammers here"}
    reply = await api.as_(admin).post("/v1/users", json=new, headers=keyed())
    assert reply.status_code == 201
    (digest,) = await session.scalars(select(StoredAnswer.request_digest))
    body = reply.request.content
    for sent in (body, b"POST /v1/users?\n" + body):
        assert hashlib.sha256(sent).digest() != digest


async def test_an_answer_past_its_time_is_not_repeated(api, editor, session, count):
    client, key = api.as_(editor), keyed()
    first = await client.post("/v1/items", json=NEW, headers=key)
    await session.execute(update(StoredAnswer).values(expires_at=func.now() - timedelta(seconds=1)))
    await session.commit()
    again = await client.post("/v1/items", json={**NEW, "sku": "H-2"}, headers=key)
    assert again.status_code == 201
    assert again.json()["id"] != first.json()["id"]
    assert (await count(Item), await count(StoredAnswer)) == (2, 1)


async def test_answers_past_their_time_are_pruned(api, editor, session, count):
    client = api.as_(editor)
    for sku in ("H-1", "H-2"):
        await client.post("/v1/items", json={**NEW, "sku": sku}, headers=keyed(sku))
    one = select(StoredAnswer.key_digest).limit(1).scalar_subquery()
    past = func.now() - timedelta(seconds=1)
    await session.execute(
        update(StoredAnswer).where(StoredAnswer.key_digest == one).values(expires_at=past)
    )
    await session.commit()
    assert await prune(session) == 1
    await session.commit()
    assert await count(StoredAnswer) == 1


async def test_a_key_does_not_let_in_who_may_not_come_in(api, viewer, count):
    reply = await api.post("/v1/items", json=NEW, headers=keyed())
    assert reply.status_code == 401
    reply = await api.as_(viewer).post("/v1/items", json=NEW, headers=keyed())
    assert reply.status_code == 403
    assert await count(StoredAnswer) == 0


@pytest.mark.parametrize("bad", ["", "x" * 256, "with space", "é"])
async def test_a_key_is_one_printable_word(bad, api, editor, count):
    headers = {"Idempotency-Key": bad.encode()}
    reply = await api.as_(editor).post("/v1/items", json=NEW, headers=headers)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "header/Idempotency-Key"
    assert await count(Item) == 0
