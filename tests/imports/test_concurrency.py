"""Imports beside other writers: whoever comes second sees what the first has done."""

from decimal import Decimal

import pytest
from sqlalchemy import select, text
from tests.conftest import connected, one_host, until

from pricebook.core import database as core_database
from pricebook.imports.tasks import _LOCK
from pricebook.jobs.models import JobLogLine

ROW = "sku,name,price,currency\nH-1,Hammer,9.99,EUR\n"
PRICES = "sku,price\nH-1,9.99\n"


@pytest.fixture
async def other(settings):
    """The connection of another writer."""
    async with connected(one_host(settings)) as connection:
        yield connection


@pytest.fixture
def beside(other, ask, finish, runner, session):
    """Import a file while another writer's statement is not committed until it is waited for."""

    async def run(sent, statement, **params):
        transaction = other.transaction()
        await transaction.start()
        await other.execute(statement)
        job = await ask(sent, **params)
        runner.wake()
        await until(lambda: _is_waiting(session))
        await transaction.commit()
        return await finish(job)

    return run


async def _is_waiting(session):
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    count = await session.scalar(text(waiting))
    await session.commit()
    return count


async def test_an_item_that_is_changed_meanwhile_is_compared_anew(
    beside, make_item, items, recorded
):
    await make_item(sku="H-1", price=Decimal("12.5"))
    job = await beside(ROW, "UPDATE items SET price = 20, version = 2")
    assert (job.result["changed"], job.result["price_changes"]) == (1, 1)
    item = (await items())["H-1"]
    assert (item.price, item.version) == (Decimal("9.99"), 3)
    (told,) = [event for event in await recorded() if event.type == "item.price_changed"]
    assert (told.payload["old_price"], told.payload["new_price"]) == ("20.0000", "9.9900")


async def test_an_item_that_meanwhile_became_what_the_file_says_is_unchanged(
    beside, make_item, items, recorded
):
    await make_item(sku="H-1", price=Decimal("12.5"))
    job = await beside(ROW, "UPDATE items SET price = 9.99, version = 2")
    assert (job.result["changed"], job.result["unchanged"]) == (0, 1)
    assert (await items())["H-1"].version == 2
    assert [event.type for event in await recorded()] == ["job.finished"]


async def test_an_item_that_is_added_meanwhile_is_changed_and_not_added_again(
    beside, items, recorded
):
    added = "INSERT INTO items (sku, name, price, currency) VALUES ('H-1', 'Nail', 9.99, 'EUR')"
    job = await beside(ROW, added)
    assert (job.result["new"], job.result["changed"]) == (0, 1)
    assert (await items())["H-1"].name == "Hammer"
    assert [event.type for event in await recorded()] == ["item.updated", "job.finished"]


async def test_an_item_that_is_deleted_meanwhile_is_new_again(beside, make_item, items):
    old = await make_item(sku="H-1", price=Decimal("12.5"))
    job = await beside(ROW, "DELETE FROM items")
    assert (job.result["new"], job.result["changed"]) == (1, 0)
    assert (await items())["H-1"].id != old.id


@pytest.mark.parametrize("skip_refused", [False, True])
async def test_an_item_that_is_deleted_meanwhile_is_refused_where_the_file_has_too_little(
    beside, make_item, items, skip_refused
):
    await make_item(sku="H-1", price=Decimal("12.5"))
    job = await beside(PRICES, "DELETE FROM items", skip_refused=skip_refused)
    assert job.status == ("succeeded" if skip_refused else "failed")
    assert (job.result["refused"], job.result["changed"], job.result["unchanged"]) == (1, 0, 0)
    assert job.result["refusals"][0]["column"] == "sku"
    assert await items() == {}


async def test_who_changes_an_item_after_an_import_changes_what_the_import_wrote(
    api, editor, do_import, make_item, items
):
    item = await make_item(sku="H-1", price=Decimal("12.5"))
    await do_import(ROW)
    reply = await api.as_(editor).patch(
        f"/v1/items/{item.id}", json={"name": "Mallet"}, headers={"If-Match": '"2"'}
    )
    assert reply.status_code == 200
    assert ((await items())["H-1"].price, reply.json()["version"]) == (Decimal("9.99"), 3)


async def test_an_import_waits_until_another_one_has_written(beside, items, session):
    job = await beside(ROW, f"SELECT pg_advisory_xact_lock({_LOCK})")
    assert job.status == "succeeded"
    assert list(await items()) == ["H-1"]
    lines = select(JobLogLine.text).where(JobLogLine.job_id == job.id).order_by(JobLogLine.number)
    said = "Another import is writing; this one waits for its end."
    assert said in (await session.scalars(lines)).all()


async def test_a_dry_run_waits_for_nobody(do_import, other):
    async with other.transaction():
        await other.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        job = await do_import(ROW, mode="dry-run")
    assert (job.status, job.result["new"]) == ("succeeded", 1)


@pytest.fixture
def impatient(monkeypatch):
    """Wait for other writers for a fraction of a second only."""
    monkeypatch.setitem(core_database.PATIENT, "lock_timeout", "300")


async def test_an_import_that_waits_too_long_for_an_item_is_started_again(
    impatient, ask, finish, read_job, other, make_item, items
):
    async def is_put_back():
        found = await read_job(job)
        return found.attempts == 1 and found.status == "queued"

    await make_item(sku="H-1", price=Decimal("12.5"))
    async with other.transaction():
        await other.execute("UPDATE items SET notes = 'Reorder'")
        job = await ask(ROW)
        await until(is_put_back)
    job = await finish(job)
    assert (job.status, job.attempts) == ("succeeded", 2)
    assert (await items())["H-1"].price == Decimal("9.99")
