"""What becomes of a job, however the work goes."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import func, select, update
from tests.conftest import until
from tests.jobs.conftest import wait_for_ever

from pricebook.core.clock import now
from pricebook.core.principal import Role
from pricebook.core.settings import JobSettings
from pricebook.items.models import Item
from pricebook.jobs.models import Job, Status
from pricebook.jobs.run import JobRefused, LeaseLostError

SENTENCE = ("The file has no header.",)
SECRET = ("secret",)
ITEM = {"sku": "HAM-1", "name": "Hammer", "price": 1, "currency": "EUR"}


async def ask_to_stop(session, job):
    await session.execute(update(Job).where(Job.id == job.id).values(cancel_requested_at=now()))
    await session.commit()


async def test_a_job_is_done_and_its_end_is_an_event(working, ask, ended, recorded, read_log):
    async def count(run):
        run.progress("counting", 2, 3)
        run.say("Counting.")
        return {"counted": run.params["up_to"]}

    job = await ask("count", up_to=3)
    async with working(count=count):
        done = await ended(job)
    assert (done.status, done.result, done.done, done.total, done.phase) == (
        Status.SUCCEEDED,
        {"counted": 3},
        3,
        3,
        None,
    )
    assert await read_log(job) == ["Started.", "Counting.", "Done."]
    (event,) = await recorded()
    assert event.payload == {
        "job_id": str(job.id),
        "kind": "count",
        "status": "succeeded",
        "owner_id": str(job.owner_id),
    }
    assert event.actor_id == job.owner_id


async def test_a_refusal_is_told_in_its_own_words_and_anything_else_is_not(
    working, ask, ended, read_log
):
    async def refuse(_run):
        raise JobRefused(*SENTENCE, result={"rows": 0})

    async def break_(_run):
        raise ZeroDivisionError(*SECRET)

    refused, broken = await ask("refuse"), await ask("break_")
    async with working(refuse=refuse, break_=break_):
        first, second = await ended(refused), await ended(broken)
    assert (first.status, first.error, first.result) == (
        Status.FAILED,
        "The file has no header.",
        {"rows": 0},
    )
    assert second.status == Status.FAILED
    assert "secret" not in second.error
    assert await read_log(refused) == ["Started.", "Failed: The file has no header."]
    assert "secret" not in "".join(await read_log(broken))


async def test_a_refusal_out_of_a_group_of_tasks_is_a_refusal(working, ask, ended):
    async def refuse(_run):
        raise JobRefused(*SENTENCE)

    async def both(run):
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse(run))
            group.create_task(wait_for_ever(run))

    job = await ask("both")
    async with working(both=both):
        assert (await ended(job)).error == "The file has no header."


@pytest.mark.parametrize("result", [{"text": "\x00"}, {"what": object}], ids=["nul", "no json"])
async def test_a_result_that_cannot_be_written_down_fails_the_job(working, ask, ended, result):
    async def find(_run):
        return result

    job = await ask("find")
    async with working(find=find):
        assert (await ended(job)).status == Status.FAILED


async def test_whatever_a_job_says_gets_into_the_log(working, ask, ended, read_log):
    async def talk(run):
        run.say("NUL \x00, a lone surrogate \ud800.")
        run.say("And on it goes.")

    job = await ask("talk")
    async with working(talk=talk):
        await ended(job)
    _started, odd, after, _done = await read_log(job)
    assert odd.startswith("NUL ")
    assert after == "And on it goes."


async def test_a_job_may_say_very_much_at_once(working, ask, ended, read_log):
    async def talk(run):
        for number in range(20_000):
            run.say(f"Line {number}.")

    job = await ask("talk")
    async with working(talk=talk):
        await ended(job)
    lines = await read_log(job)
    assert len(lines) == 20_002
    assert lines[-2:] == ["Line 19999.", "Done."]


async def test_how_far_a_job_is_and_what_it_says_is_written_while_it_runs(
    working, ask, read_job, read_log
):
    may_go_on = asyncio.Event()

    async def count(run):
        for number in (10, 20):
            run.progress("counting", number, 100)
            run.say(f"At {number}.")
            await may_go_on.wait()
            may_go_on.clear()
            await asyncio.sleep(0.6)

    job = await ask("count")
    async with working(count=count):
        for number in (10, 20):

            async def is_at(number=number):
                found = await read_job(job)
                return (found.phase, found.done, found.total) == ("counting", number, 100)

            await until(is_at)
            assert (await read_log(job))[-1] == f"At {number}."
            may_go_on.set()
        assert (await read_job(job)).rate > 0
    assert (await read_log(job)).count("At 20.") == 1


async def test_a_job_that_is_asked_to_stop_stops(working, ask, ended, session, recorded, read_log):
    begun = asyncio.Event()

    async def wait(run):
        begun.set()
        await wait_for_ever(run)

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
        await ask_to_stop(session, job)
        assert (await ended(job)).status == Status.CANCELLED
    assert [event.payload["status"] for event in await recorded()] == ["cancelled"]
    assert await read_log(job) == ["Started.", "Cancelled."]


async def test_work_that_swallows_a_cancellation_is_cancelled_all_the_same(
    working, ask, ended, session
):
    begun = asyncio.Event()

    async def wait(run):
        begun.set()
        for _ in range(2):
            try:
                await wait_for_ever(run)
            except asyncio.CancelledError:
                continue
        await wait_for_ever(run)

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
        await ask_to_stop(session, job)
        assert (await ended(job)).status == Status.CANCELLED


async def test_a_job_that_was_asked_to_stop_before_it_starts_is_not_done(
    working, ask, ended, session
):
    async def work(_run):
        raise AssertionError

    job = await ask("work")
    await ask_to_stop(session, job)
    async with working(work=work):
        found = await ended(job)
    assert (found.status, found.error) == (Status.CANCELLED, None)


async def test_work_and_its_end_are_one_transaction(working, ask, ended, session, read_log):
    async def add(run):
        async with run.tools.database.sessions.begin() as own:
            own.add(Item(**ITEM))
            await run.complete(own, {"added": 1})

    job = await ask("add")
    async with working(add=add):
        found = await ended(job)
    assert (found.status, found.result) == (Status.SUCCEEDED, {"added": 1})
    assert await read_log(job) == ["Started.", "Done."]
    assert await count_items(session) == 1


async def test_what_breaks_after_the_end_does_not_change_it(working, ask, ended, recorded):
    async def add(run):
        async with run.tools.database.sessions.begin() as own:
            await run.complete(own, {})
        raise ZeroDivisionError

    job = await ask("add")
    async with working(add=add):
        await ended(job)
    assert (await ended(job)).status == Status.SUCCEEDED
    assert len(await recorded()) == 1


async def test_an_end_that_is_rolled_back_is_none(working, ask, ended, session, recorded, read_log):
    async def add(run):
        async with run.tools.database.sessions.begin() as own:
            own.add(Item(**ITEM))
            await run.complete(own, {"added": 1})
            raise JobRefused(*SENTENCE)

    job = await ask("add")
    async with working(add=add):
        found = await ended(job)
    assert (found.status, found.result) == (Status.FAILED, None)
    assert await count_items(session) == 0
    assert [event.payload["status"] for event in await recorded()] == ["failed"]
    assert await read_log(job) == ["Started.", "Failed: The file has no header."]


@pytest.mark.parametrize("is_own_transaction", [True, False])
async def test_who_asks_before_the_end_has_the_job_cancelled_and_its_work_rolled_back(
    working, ask, ended, session, database, is_own_transaction
):
    asked = asyncio.Event()
    begun = asyncio.Event()

    async def add(run):
        begun.set()
        await asked.wait()
        if not is_own_transaction:
            return {}
        async with run.tools.database.sessions.begin() as own:
            own.add(Item(**ITEM))
            await run.complete(own, {})
        return {}

    job = await ask("add")
    async with working(add=add):
        await begun.wait()
        # Sooner than any heartbeat could tell.
        await ask_to_stop(session, job)
        asked.set()
        assert (await ended(job)).status == Status.CANCELLED
    assert await count_items(session) == 0


async def test_whoever_lost_the_job_changes_nothing_any_more(
    working, ask, read_job, session, recorded, read_log
):
    """Its process slept, say, and another one has started the job meanwhile."""
    begun, may_go_on, is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def add(run):
        run.progress("adding", 1, 2)
        begun.set()
        try:
            await may_go_on.wait()
            async with run.tools.database.sessions.begin() as own:
                own.add(Item(**ITEM))
                with pytest.raises(LeaseLostError):
                    await run.complete(own, {})
                raise LeaseLostError
        finally:
            is_over.set()

    job = await ask("add")
    async with working(add=add):
        await begun.wait()
        other = {"lease": Job.lease + 1, "attempts": Job.attempts + 1, "leased_until": now()}
        later = {**other, "leased_until": now().replace(year=2999)}
        await session.execute(update(Job).where(Job.id == job.id).values(later))
        await session.commit()
        may_go_on.set()
        await is_over.wait()
    found = await read_job(job)
    assert (found.status, found.attempts, found.done) == (Status.RUNNING, 2, 0)
    assert await count_items(session) == 0
    assert await recorded() == []
    assert await read_log(job) in ([], ["Started."])


async def test_a_worker_stops_what_it_has_lost(working, ask, session):
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def wait(run):
        begun.set()
        try:
            await wait_for_ever(run)
        finally:
            stopped.set()

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
        held = {"lease": Job.lease + 1, "leased_until": now().replace(year=2999)}
        await session.execute(update(Job).where(Job.id == job.id).values(held))
        await session.commit()
        async with asyncio.timeout(5):
            await stopped.wait()


async def test_a_stopped_worker_puts_its_jobs_back(working, ask, read_job, read_log):
    begun = asyncio.Event()

    async def wait(run):
        run.progress("waiting", 1, 2)
        begun.set()
        await wait_for_ever(run)

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
    found = await read_job(job)
    assert (found.status, found.attempts, found.leased_until) == (Status.QUEUED, 0, None)
    assert (found.phase, found.done, found.total) == (None, 0, None)
    assert await read_log(job) == ["Started.", "The worker stops; it is started again."]


async def test_a_job_that_ends_as_the_worker_stops_is_not_done_again(working, ask, read_job):
    begun = asyncio.Event()

    async def finish(_run):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {"saved": True}

    job = await ask("finish")
    async with working(finish=finish):
        await begun.wait()
    assert (await read_job(job)).status == Status.SUCCEEDED


async def test_after_an_outage_a_job_starts_from_its_beginning(working, ask, ended, read_log):
    seen = []

    async def fail_once(run):
        seen.append((run.done, run.phase))
        run.progress("trying", 5, 10)
        if len(seen) == 1:
            raise asyncpg.ConnectionDoesNotExistError
        return {"tries": len(seen)}

    job = await ask("fail_once")
    async with working(fail_once=fail_once):
        found = await ended(job)
    assert (found.status, found.attempts, found.result) == (Status.SUCCEEDED, 2, {"tries": 2})
    assert seen == [(0, None)] * 2
    assert await read_log(job) == [
        "Started.",
        "Broken off by an outage; it is started again.",
        "Started, for the 2nd time.",
        "Done.",
    ]


class TestTooOften:
    @pytest.fixture
    def job_settings(self):
        return JobSettings(max_attempts=2)

    async def test_a_job_whose_workers_die_is_not_started_for_ever(
        self, working, ask, ended, session
    ):
        async def work(_run):
            raise AssertionError

        job = await ask("work")
        died = {"attempts": 2, "status": "running", "lease": 2, "leased_until": now()}
        await session.execute(update(Job).where(Job.id == job.id).values(died))
        await session.commit()
        async with working(work=work):
            found = await ended(job)
        assert found.status == Status.FAILED
        assert "too often" in found.error

    async def test_a_job_that_only_meets_outages_fails_in_the_end(self, working, ask, ended):
        async def work(_run):
            raise asyncpg.ConnectionDoesNotExistError

        job = await ask("work")
        async with working(work=work):
            found = await ended(job)
        assert (found.status, found.attempts) == (Status.FAILED, 2)


@pytest.mark.parametrize("how", ["disabled", "demoted", "demoted below the job", "gone"])
async def test_nothing_is_done_for_who_may_no_longer_have_it_done(
    working, ask, ended, session, make_user, how
):
    async def work(_run):
        raise AssertionError

    user = await make_user("admin" if how.endswith("job") else "editor")
    role = Role.ADMIN if how.endswith("job") else Role.VIEWER
    job = await ask("work", owner=user, new={"role": role})
    if how == "gone":
        await session.delete(user)
    elif how == "disabled":
        user.disabled_at = now()
    else:
        user.role = "editor" if how.endswith("job") else "viewer"
    await session.commit()
    async with working(Role.EDITOR, work=work):
        found = await ended(job)
    assert (found.status, found.attempts) == (Status.FAILED, 1)
    assert found.error == "Whoever asked for this may no longer have it done."


async def test_who_asked_works_with_the_role_of_the_moment(working, ask, ended, session, viewer):
    async def tell_role(run):
        return {"role": run.owner.role}

    job = await ask("tell_role", owner=viewer)
    viewer.role = "admin"
    await session.commit()
    async with working(tell_role=tell_role):
        assert (await ended(job)).result == {"role": "admin"}


async def count_items(session):
    return await session.scalar(select(func.count()).select_from(Item))
