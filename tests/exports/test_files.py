"""Exports as files: asked for, made by a job, read whole or in ranges, and by a link."""

import asyncio
import csv
import gzip
import hashlib
import io
import json
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import zstandard
from sqlalchemy import func, select, update
from tests.conftest import until

from pricebook.core.database import open_database
from pricebook.core.files import Files
from pricebook.core.settings import ExportSettings
from pricebook.items.models import Item
from pricebook.jobs.models import Job
from pricebook.jobs.run import Tools
from pricebook.jobs.runner import Runner
from pricebook.jobs.status import Status
from pricebook.users.models import User
from pricebook.worker import TASKS

ITEMS = {"resource": "items"}


@pytest.fixture
def files(settings):
    return Files(settings)


@pytest.fixture
def working(database, settings):
    """Run jobs as a worker does."""

    @asynccontextmanager
    async def start(store=Files, settings=settings):
        async with open_database(settings, "tests-jobs", is_patient=True) as patient:
            runner = Runner(database, Tools(settings, patient, store(settings)), TASKS)
            running = asyncio.create_task(runner.run())
            try:
                yield runner
            finally:
                runner.stop()
                await running

    return start


@pytest.fixture
def ask(api):
    """Ask for a file, and return its job."""

    async def run(user, **asked):
        reply = await api.as_(user).post("/v1/exports", json={**ITEMS, **asked})
        assert reply.status_code == 202, reply.text
        assert reply.headers["location"] == f"/v1/jobs/{reply.json()['id']}"
        return reply.json()

    return run


@pytest.fixture
def make(api, ask, working):
    """Have a file made, and return its job as it ended."""

    async def run(user, **asked):
        job = await ask(user, **asked)
        async with working():
            return await ended(api.as_(user), job)

    return run


async def ended(client, job):
    async def is_over():
        return (await read(client, job))["finished_at"] is not None

    await until(is_over)
    return await read(client, job)


async def read(client, job):
    return (await client.get(f"/v1/jobs/{job['id']}")).json()


async def test_a_file_is_made_and_says_what_it_is(api, editor, make_item, make):
    await make_item(sku="HAM-1", price="12.50", cost="7.25", tags=["tools", "new"])
    await make_item(sku="NAIL-1", name='Nail, 3"', price="0.05")
    job = await make(editor)
    result = job["result"]
    assert (job["status"], job["done"], job["total"], result["rows"]) == ("succeeded", 2, 2, 2)
    reply = await api.as_(editor).get(result["file"])
    assert reply.status_code == 200
    first, second = csv.DictReader(io.StringIO(reply.text))
    assert (first["sku"], first["cost"], first["tags"]) == ("HAM-1", "7.2500", "tools;new")
    assert second["name"] == 'Nail, 3"'
    assert (len(reply.content), hashlib.sha256(reply.content).hexdigest()) == (
        result["bytes"],
        result["sha256"],
    )
    assert reply.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert f'filename="{result["filename"]}"' in reply.headers["content-disposition"]
    assert (result["role"], "link" in result) == ("editor", False)


async def test_it_holds_what_the_filters_and_fields_ask_for(api, viewer, make_item, make):
    item = await make_item(sku="HAM-1", price="12.50", tags=["tools"])
    await make_item(sku="HAM-2", price="99", tags=["tools"])
    await make_item(sku="NAIL-1", price="12.50")
    filters = {
        "q": "ham", "tag": ["tools"], "price_max": "50", "currency": "EUR",
        "updated_since": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    job = await make(viewer, format="jsonl", filters=filters, fields="id,price")
    reply = await api.as_(viewer).get(job["result"]["file"])
    assert [json.loads(line) for line in reply.text.splitlines()] == [
        {"id": str(item.id), "price": "12.5000"}
    ]


def unpacked_zstd(packed):
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


@pytest.mark.parametrize(
    ("compression", "ending", "media_type", "unpack"),
    [
        ("gzip", ".csv.gz", "application/gzip", gzip.decompress),
        ("zstd", ".csv.zst", "application/zstd", unpacked_zstd),
    ],
)
async def test_a_compressed_file_is_one_and_no_encoding(
    api, viewer, make_item, make, compression, ending, media_type, unpack
):
    await make_item(sku="HAM-1")
    job = await make(viewer, compression=compression, bom=True, delimiter="semicolon")
    reply = await api.as_(viewer).get(job["result"]["file"])
    assert reply.headers["content-type"] == media_type
    assert "content-encoding" not in reply.headers
    assert job["result"]["filename"].endswith(ending)
    assert unpack(reply.content).startswith(b"\xef\xbb\xbfsku;name;")
    assert hashlib.sha256(reply.content).hexdigest() == job["result"]["sha256"]


async def test_a_viewers_file_has_no_internal_fields_and_none_can_be_asked_for(
    api, viewer, make_item, make
):
    await make_item(cost="7.25", notes="canary")
    job = await make(viewer)
    assert "canary" not in (await api.as_(viewer).get(job["result"]["file"])).text
    for fields, status in (("sku,cost", 403), ("sku,colour", 422)):
        reply = await api.as_(viewer).post("/v1/exports", json={**ITEMS, "fields": fields})
        assert reply.status_code == status
        (error,) = reply.json()["errors"]
        assert error["pointer"] == f"/fields/{fields.partition(',')[2]}"


async def test_what_a_file_may_hold_is_what_its_owner_may_see_when_it_is_made(
    api, ask, working, editor, admin, make_item
):
    await make_item(notes="canary")
    job = await ask(editor)
    reply = await api.as_(admin).patch(f"/v1/users/{editor.id}", json={"role": "viewer"})
    assert reply.status_code == 200
    async with working():
        job = await ended(api.as_(admin), job)
    assert "canary" not in (await api.as_(admin).get(job["result"]["file"])).text


async def test_users_are_for_admins_and_hold_no_secrets(api, viewer, admin, make):
    asked = {"resource": "users", "format": "jsonl", "filters": {"q": viewer.email}}
    reply = await api.as_(viewer).post("/v1/exports", json=asked)
    assert reply.status_code == 403
    job = await make(admin, **asked)
    text = (await api.as_(admin).get(job["result"]["file"])).text
    assert json.loads(text)["email"] == viewer.email
    assert "argon2" not in text


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""),
        ({"resource": "prices"}, ""),
        ({**ITEMS, "format": "xlsx"}, "/format"),
        ({**ITEMS, "filters": {"price_min": "much"}}, "/filters/price_min"),
        ({**ITEMS, "filters": {"limit": 5}}, "/filters/limit"),
        ({**ITEMS, "filters": None}, "/filters"),
        ({**ITEMS, "fields": "id;price"}, "/fields"),
        ({**ITEMS, "delimiter": "|"}, "/delimiter"),
        ({**ITEMS, "bom": "yes"}, "/bom"),
        ({**ITEMS, "format": "jsonl", "guard": False}, "/guard"),
        ({**ITEMS, "compression": "zip"}, "/compression"),
        ({**ITEMS, "notify": 1}, "/notify"),
        ({**ITEMS, "to": "ann@example.com"}, "/to"),
    ],
)
async def test_what_cannot_be_made_is_refused_at_once(api, editor, session, asked, pointer):
    reply = await api.as_(editor).post("/v1/exports", json=asked)
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["pointer"] == pointer
    assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_a_repeat_with_the_same_idempotency_key_is_one_job(api, editor, session):
    key = {"Idempotency-Key": "export-1"}
    replies = [await api.as_(editor).post("/v1/exports", json=ITEMS, headers=key) for _ in "12"]
    assert replies[0].json() == replies[1].json()
    assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_a_file_is_read_in_ranges_and_conditionally(api, editor, make_item, make):
    await make_item(sku="HAM-1")
    url = (await make(editor))["result"]["file"]
    client = api.as_(editor)
    whole = await client.get(url)
    part = await client.get(url, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, whole.content[4:8])
    same = await client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304
    past = await client.get(url, headers={"Range": "bytes=100000-"})
    assert past.status_code == 416
    head = await client.head(url)
    assert head.headers["content-length"] == str(len(whole.content))


async def test_until_it_is_ready_there_is_no_file_nor_if_its_job_failed(
    api, editor, session, ask, make
):
    for status in (None, Status.FAILED, Status.CANCELLED):
        job = await ask(editor)
        if status is not None:
            over = {"status": status, "finished_at": func.now()}
            await session.execute(update(Job).where(Job.id == job["id"]).values(over))
            await session.commit()
        for what in ("file", "link"):
            reply = await api.as_(editor).get(f"/v1/exports/{job['id']}/{what}")
            assert (reply.status_code, reply.json()["type"]) == (409, "/problems/export-unready")


async def test_a_file_is_for_its_owner_and_admins(api, editor, admin, make_user, make):
    job = await make(editor)
    url = job["result"]["file"]
    assert (await api.as_(await make_user("editor")).get(url)).status_code == 404
    assert (await api.get(url)).status_code == 401
    assert (await api.as_(admin).get(url)).status_code == 200
    assert (await api.as_(editor).get(f"/v1/exports/{uuid4()}/file")).status_code == 404


async def test_a_key_needs_the_scope_that_the_export_took(api, admin, make_key, make):
    job = await make(admin, resource="users")
    for scope, status in (("users:read", 200), ("items:read", 403)):
        client = api.with_token(await make_key(admin, scope))
        assert (await client.get(job["result"]["file"])).status_code == status
        reply = await client.post("/v1/exports", json={"resource": "users"})
        assert reply.status_code == (202 if status == 200 else 403)


async def test_who_has_come_down_in_role_reads_no_more_what_they_saw_then(
    api, editor, admin, make, make_user, session
):
    job = await make(editor)
    await session.execute(update(User).where(User.id == editor.id).values(role="viewer"))
    await session.commit()
    client = api.as_(editor)

    async def is_refused():
        return (await client.get(job["result"]["file"])).status_code == 404

    await until(is_refused)
    assert (await client.get(f"/v1/exports/{job['id']}/link")).status_code == 404
    assert (await api.as_(admin).get(job["result"]["file"])).status_code == 200


async def test_a_file_past_its_time_is_gone(api, editor, make, session):
    job = await make(editor)
    link = await link_of(api.as_(editor), job)
    past = {**job["result"], "expires_at": "2026-01-01T00:00:00+00:00"}
    await session.execute(update(Job).where(Job.id == job["id"]).values(result=past))
    await session.commit()
    reply = await api.as_(editor).get(job["result"]["file"])
    assert (reply.status_code, reply.json()["type"]) == (404, "/problems/export-expired")
    assert (await api.get(link)).status_code == 404


async def test_a_file_that_the_store_has_lost_is_gone(api, editor, make, files, session):
    job = await make(editor)
    await files.delete(await session.scalar(select(Job.files)))
    reply = await api.as_(editor).get(job["result"]["file"])
    assert (reply.status_code, reply.json()["type"]) == (404, "/problems/file-expired")


async def link_of(client, job):
    reply = await client.get(f"/v1/exports/{job['id']}/link")
    assert reply.status_code == 200, reply.text
    assert reply.headers["cache-control"] == "no-store"
    found = urlsplit(reply.json()["link"])
    return f"{found.path}?{found.query}"


async def test_a_link_opens_the_file_without_a_token(api, editor, make_item, make):
    await make_item(sku="HAM-1")
    job = await make(editor)
    link = await link_of(api.as_(editor), job)
    by_token = await api.as_(editor).get(job["result"]["file"])
    by_link = await api.get(link)
    assert (by_link.status_code, by_link.content) == (200, by_token.content)
    part = await api.get(link, headers={"Range": "bytes=-2"})
    assert (part.status_code, part.content) == (206, b"\r\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda link: link.replace("expires=", "expires=1"),
        lambda link: link[:-1],
        lambda link: link.replace("&signature=", "&signature=x"),
        lambda link: link.partition("expires=")[0] + link.partition("&")[2],
        lambda link: link.replace(link.split("/")[3], str(uuid4())),
    ],
)
async def test_a_link_that_was_tampered_with_opens_nothing(api, editor, make, spoil):
    job = await make(editor)
    spoilt = spoil(await link_of(api.as_(editor), job))
    reply = await api.get(spoilt)
    assert (reply.status_code, reply.json()["type"]) == (403, "/problems/link-invalid")
    # A token does not help a link that is none.
    assert (await api.as_(editor).get(spoilt)).status_code == 403


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "viewer"}])
async def test_a_link_dies_when_its_owner_is_shut_out_or_has_another_role(
    api, editor, admin, make, change
):
    job = await make(editor)
    link = await link_of(api.as_(editor), job)
    reply = await api.as_(admin).patch(f"/v1/users/{editor.id}", json=change)
    assert reply.status_code == 200
    assert (await api.get(link)).status_code == 403
    back = {"disabled": False} if "disabled" in change else {"role": "editor"}
    await api.as_(admin).patch(f"/v1/users/{editor.id}", json=back)
    assert (await api.get(link)).status_code == 403


async def test_a_link_is_made_by_the_owner_alone(api, editor, admin, make):
    job = await make(editor)
    assert (await api.as_(admin).get(f"/v1/exports/{job['id']}/link")).status_code == 404
    assert (await api.get(f"/v1/exports/{job['id']}/link")).status_code == 401


async def test_without_a_secret_key_there_is_no_link(api, editor, make, make_api):
    job = await make(editor)
    keyless = await make_api(secret_key=None)
    reply = await keyless.as_(editor).get(f"/v1/exports/{job['id']}/link")
    assert (reply.status_code, reply.json()["link"]) == (200, None)


async def test_a_signature_stands_in_no_log(editor, make, make_api, api, capfd):
    job = await make(editor)
    link = await link_of(api.as_(editor), job)
    logging = await make_api(log={"access": True, "level": "DEBUG"})
    assert (await logging.get(link)).status_code == 200
    written = "".join(capfd.readouterr())
    assert job["result"]["file"] in written
    assert link.partition("signature=")[2] not in written


async def test_an_export_whose_owner_may_no_longer_have_it_made_fails_in_words(
    api, admin, make_user, ask, working
):
    second = await make_user("admin")
    job = await ask(second, resource="users")
    await api.as_(admin).patch(f"/v1/users/{second.id}", json={"role": "editor"})
    async with working():
        job = await ended(api.as_(admin), job)
    assert (job["status"], job["result"]) == ("failed", None)
    assert "may" in job["error"]


async def test_a_cancelled_export_leaves_no_file(api, editor, make_item, ask, working, settings):
    await make_item()
    begun = asyncio.Event()

    class Stalling(Files):
        """Goes on for ever after the first bytes."""

        async def write(self, name, chunks):
            async def slowed():
                async for chunk in chunks:
                    yield chunk
                    begun.set()
                    await asyncio.sleep(60)

            await super().write(name, slowed())

    job = await ask(editor)
    async with working(Stalling):
        await begun.wait()
        await api.as_(editor).post(f"/v1/jobs/{job['id']}/cancel")
        job = await ended(api.as_(editor), job)
    assert (job["status"], job["result"]) == ("cancelled", None)
    assert names_of(job, settings) == []


def names_of(job, settings):
    """Return what lies in the folder of this job's, unfinished files among it."""
    folder = Path(urlsplit(settings.files.url).path)
    return [path.name for path in folder.rglob(f"*{job['id']}*")]


async def test_an_export_that_takes_longer_than_one_may_fails_in_words(
    api, editor, make_item, ask, working, settings
):
    await make_item()
    own = settings.model_copy(update={"exports": ExportSettings(max_minutes=0.0001)})
    job = await ask(editor)
    async with working(settings=own):
        job = await ended(api.as_(editor), job)
    assert (job["status"], job["error"][:25]) == ("failed", "It took longer than an ex")
    assert names_of(job, settings) == []


async def test_a_file_is_of_one_moment_whatever_is_written_meanwhile(
    api, editor, make_item, ask, working, session
):
    for number in range(300):
        session.add(Item(sku=f"HAM-{number:03}", name="Hammer", price="1", currency="EUR"))
    await session.commit()
    written = asyncio.Event()

    class Interrupted(Files):
        """Has the list change once the first bytes are there."""

        async def write(self, name, chunks):
            async def slowed():
                async for chunk in chunks:
                    yield chunk
                    if not written.is_set():
                        await session.execute(update(Item).values(price="2"))
                        await session.commit()
                        written.set()

            await super().write(name, slowed())

    job = await ask(editor, fields="price")
    async with working(Interrupted):
        job = await ended(api.as_(editor), job)
    assert written.is_set()
    text = (await api.as_(editor).get(job["result"]["file"])).text
    assert text.split() == ["price", *["1.0000"] * 300]
    assert job["result"]["rows"] == 300
