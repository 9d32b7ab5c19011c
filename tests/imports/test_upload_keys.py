"""Idempotency-Key on an upload, whose body is never in memory to compare."""

import asyncio

from sqlalchemy import func, select
from tests.uploading import ROWS, Dripping, never_read, send

from pricebook.core.idempotency import StoredAnswer

KEY = {"Idempotency-Key": "spring-2026"}


async def test_a_repeat_gets_the_first_answer_and_its_file_is_deleted(client, jobs, stored):
    first = await send(client, headers=KEY)
    second = await send(client, headers=KEY)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.content == first.content
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    (job,) = await jobs()
    assert stored() == [job.params["file"]]


async def test_another_file_or_another_wish_with_the_key_is_refused(client, jobs, stored):
    await send(client, headers=KEY)
    for content, query in ((ROWS + b"H-2,Nail,1,EUR\r\n", {}), (ROWS, {"mode": "apply"})):
        reply = await send(client, content, KEY, **query)
        assert reply.status_code == 422
        assert reply.json()["type"] == "/problems/idempotency-key-reused"
    assert (len(await jobs()), len(stored())) == (1, 1)


async def test_an_upload_under_way_keeps_its_key(client, jobs, stored):
    body = Dripping()
    first = asyncio.create_task(send(client, body, KEY))
    await body.has_begun.wait()
    reply = await send(client, never_read(), KEY)
    assert reply.status_code == 409
    assert reply.json()["type"] == "/problems/idempotency-key-in-use"
    body.may_end.set()
    assert (await first).status_code == 202
    assert (await send(client, headers=KEY)).headers["idempotency-replayed"] == "true"
    assert (len(await jobs()), len(stored())) == (1, 1)


async def test_uploads_with_a_key_to_several_processes_make_one_job(
    client, make_api, editor, jobs, stored, database
):
    clients = [client, *[(await make_api()).as_(editor) for _ in range(2)]]
    replies = await asyncio.gather(*(send(one, headers=KEY) for one in clients * 5))
    assert {reply.status_code for reply in replies} <= {202, 409}
    assert len({reply.content for reply in replies if reply.status_code == 202}) == 1
    assert (len(await jobs()), len(stored())) == (1, 1)
    async with database.sessions() as fresh:
        assert await fresh.scalar(select(func.count()).select_from(StoredAnswer)) == 1


async def test_a_refused_upload_leaves_its_key_free(client):
    assert (await send(client, b"", KEY)).status_code == 422
    assert (await send(client, headers=KEY)).status_code == 202
