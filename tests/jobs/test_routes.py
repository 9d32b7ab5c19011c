"""Jobs over HTTP: who sees them, and who may cancel them or have them tried again."""

from uuid import uuid4

import pytest
from sqlalchemy import update
from tests.conftest import until
from tests.jobs.conftest import wait_for_ever

from pricebook.core.clock import now
from pricebook.core.files import Files
from pricebook.core.principal import Role, Scope
from pricebook.jobs.models import Job
from pricebook.jobs.run import JobRefused

FIELDS = {
    *("id", "kind", "status", "phase", "done", "total", "rate", "attempts", "result", "error"),
    *("owner_id", "cancel_requested_at", "created_at", "started_at", "finished_at"),
}
SENTENCE = ("The file has no header.",)
BY_EDITORS = {"role": Role.EDITOR, "scope": Scope.ITEMS_WRITE}


@pytest.fixture
def mark(session):
    """Write into a job's row: `mark(job, status="running")`."""

    async def write(job, **values):
        await session.execute(update(Job).where(Job.id == job.id).values(values))
        await session.commit()

    return write


async def test_a_job_is_shown_as_it_is(api, editor, ask, mark):
    job = await ask("count", up_to=3)
    shown = (await api.as_(editor).get(f"/v1/jobs/{job.id}")).json()
    assert set(shown) == FIELDS
    assert (shown["kind"], shown["status"], shown["done"], shown["attempts"]) == (
        "count",
        "queued",
        0,
        0,
    )
    for name in ("phase", "total", "rate", "result", "error", "started_at", "finished_at"):
        assert shown[name] is None
    await mark(job, status="running", phase="counting", done=5, total=10, rate=2.5, result={"a": 1})
    shown = (await api.as_(editor).get(f"/v1/jobs/{job.id}")).json()
    assert (shown["phase"], shown["done"], shown["total"], shown["rate"], shown["result"]) == (
        "counting",
        5,
        10,
        2.5,
        {"a": 1},
    )


async def test_jobs_are_for_who_asked_for_them_and_for_admins(
    api, editor, admin, viewer, make_user, ask
):
    mine, other = await ask("count"), await ask("count", owner=viewer)
    for reader, seen in (
        (editor, [mine]),
        (viewer, [other]),
        (admin, [other, mine]),
        (await make_user("editor"), []),
    ):
        listed = (await api.as_(reader).get("/v1/jobs")).json()["items"]
        assert [one["id"] for one in listed] == [str(one.id) for one in seen]
        for job in (mine, other):
            status = 200 if job in seen else 404
            for path in ("", "/stream", "/log"):
                reply = await api.as_(reader).get(f"/v1/jobs/{job.id}{path}")
                assert reply.status_code == status, path
            if status == 404:
                assert reply.json()["type"].endswith("/job-not-found")
                for action in ("cancel", "retry"):
                    reply = await api.as_(reader).post(f"/v1/jobs/{job.id}/{action}")
                    assert reply.status_code == 404


async def test_what_a_role_could_not_ask_for_it_does_not_see(api, editor, session, ask):
    """What it found may show what only that role may see."""
    job = await ask("count", new=BY_EDITORS)
    assert (await api.as_(editor).get(f"/v1/jobs/{job.id}")).status_code == 200
    editor.role = "viewer"
    await session.commit()

    async def is_hidden():
        # A process believes a token that it has checked for a moment.
        return (await api.as_(editor).get(f"/v1/jobs/{job.id}")).status_code == 404

    await until(is_hidden)


async def test_a_job_that_nobody_knows_is_404(api, admin):
    for method, path in (
        ("GET", ""),
        ("GET", "/stream"),
        ("GET", "/log"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        reply = await api.as_(admin).request(method, f"/v1/jobs/{uuid4()}{path}")
        assert reply.status_code == 404, path


async def test_the_newest_come_first_in_pages(api, editor, ask):
    jobs = [str((await ask("count")).id) for _ in range(5)]
    client = api.as_(editor)
    first = await client.get("/v1/jobs", params={"limit": 2})
    seen = [one["id"] for one in first.json()["items"]]
    assert 'rel="next"' in first.headers["link"]
    cursor = first.json()["next_cursor"]
    while cursor:
        page = (await client.get("/v1/jobs", params={"limit": 2, "cursor": cursor})).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == jobs[::-1]


async def test_a_list_shows_the_status_and_kind_that_are_asked_for(api, editor, ask, mark):
    first, second = await ask("count"), await ask("add")
    await mark(first, status="failed", finished_at=now())
    for query, expected in (
        ({"status": "failed"}, [first]),
        ({"status": "queued"}, [second]),
        ({"kind": "add"}, [second]),
        ({"kind": "add", "status": "failed"}, []),
        ({"kind": "unheard_of"}, []),
    ):
        listed = (await api.as_(editor).get("/v1/jobs", params=query)).json()["items"]
        assert [one["id"] for one in listed] == [str(one.id) for one in expected]


@pytest.mark.parametrize("query", ["status=lost", "kind=A%00", "limit=0", "cursor=x", "unknown=1"])
async def test_a_query_that_cannot_be_meant_names_its_field(api, editor, query):
    reply = await api.as_(editor).get(f"/v1/jobs?{query}")
    assert reply.status_code == 422
    pointer = f"query/{query.partition('=')[0]}"
    assert pointer in reply.text


async def test_a_job_that_waits_is_cancelled_at_once(api, editor, ask, recorded, read_log):
    job = await ask("count")
    reply = await api.as_(editor).post(f"/v1/jobs/{job.id}/cancel")
    assert reply.status_code == 200
    assert reply.json()["status"] == "cancelled"
    assert reply.json()["finished_at"] is not None
    (event,) = await recorded()
    assert (event.type, event.payload["status"]) == ("job.finished", "cancelled")
    assert await read_log(job) == ["Cancelled."]


async def test_a_job_that_runs_is_asked_to_stop(api, editor, ask, working, ended, recorded):
    job = await ask("wait")
    client = api.as_(editor)

    async with working(wait=wait_for_ever):
        while (await client.get(f"/v1/jobs/{job.id}")).json()["status"] != "running":
            pass
        replies = [await client.post(f"/v1/jobs/{job.id}/cancel") for _ in range(2)]
        assert [reply.status_code for reply in replies] == [202, 202]
        assert [reply.json()["status"] for reply in replies] == ["running"] * 2
        moments = {reply.json()["cancel_requested_at"] for reply in replies}
        assert len(moments) == 1
        assert None not in moments
        assert (await ended(job)).status == "cancelled"
    assert len(await recorded()) == 1


async def test_a_job_whose_worker_died_is_cancelled_at_once(api, editor, ask, mark, read_job):
    job = await ask("count")
    await mark(job, status="running", lease=7, leased_until=now())
    reply = await api.as_(editor).post(f"/v1/jobs/{job.id}/cancel")
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    # And should it come back to life, it holds nothing.
    assert ((await read_job(job)).lease, (await read_job(job)).leased_until) == (8, None)


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_what_has_ended_cannot_be_cancelled(api, editor, ask, mark, status, recorded):
    job = await ask("count")
    await mark(job, status=status, finished_at=now())
    reply = await api.as_(editor).post(f"/v1/jobs/{job.id}/cancel")
    assert reply.status_code == 409
    assert reply.json()["type"].endswith("/job-is-over")
    assert await recorded() == []


@pytest.mark.parametrize("status", ["queued", "running", "succeeded"])
async def test_only_what_failed_or_was_cancelled_is_tried_again(api, editor, ask, mark, status):
    job = await ask("count")
    await mark(job, status=status, finished_at=now() if status == "succeeded" else None)
    reply = await api.as_(editor).post(f"/v1/jobs/{job.id}/retry")
    assert reply.status_code == 409
    assert reply.json()["type"].endswith("/job-is-unfinished")


async def test_a_job_is_tried_again_from_its_beginning_and_its_log_goes_on(
    api, editor, ask, working, ended, read_log
):
    seen = []

    async def fail_once(run):
        seen.append((run.job.attempts, run.done, run.phase))
        run.progress("trying", 5, 10)
        if len(seen) == 1:
            raise JobRefused(*SENTENCE, result={"rows": 0})
        return {"tries": len(seen)}

    job = await ask("fail_once")
    async with working(fail_once=fail_once):
        await ended(job)
        reply = await api.as_(editor).post(f"/v1/jobs/{job.id}/retry")
        assert reply.status_code == 202
        queued = reply.json()
        for name in ("phase", "total", "rate", "result", "error", "started_at", "finished_at"):
            assert queued[name] is None, name
        assert (queued["status"], queued["done"], queued["attempts"]) == ("queued", 0, 0)
        found = await ended(job)
    assert (found.status, found.attempts, found.result) == ("succeeded", 1, {"tries": 2})
    assert seen == [(1, 0, None)] * 2
    assert await read_log(job) == [
        "Started.",
        "Failed: The file has no header.",
        "To be tried again.",
        "Started.",
        "Done.",
    ]


async def test_a_cancelled_job_can_be_tried_again(api, editor, ask, working, ended):
    async def count(_run):
        return {}

    job = await ask("count")
    client = api.as_(editor)
    await client.post(f"/v1/jobs/{job.id}/cancel")
    reply = await client.post(f"/v1/jobs/{job.id}/retry")
    assert (reply.status_code, reply.json()["cancel_requested_at"]) == (202, None)
    async with working(count=count):
        assert (await ended(job)).status == "succeeded"


async def test_what_lacks_its_files_is_not_tried_again(api, editor, ask, mark, settings):
    async def upload():
        yield b"sku"

    files = Files(settings)
    name = f"uploads/{uuid4()}"
    await files.write(name, upload())
    job = await ask("read", new={"files": [name, "not/made/yet"], "inputs": [name]})
    await mark(job, status="failed", finished_at=now())
    client = api.as_(editor)
    assert (await client.post(f"/v1/jobs/{job.id}/retry")).status_code == 202
    await mark(job, status="failed", finished_at=now())
    await files.delete([name])
    reply = await client.post(f"/v1/jobs/{job.id}/retry")
    assert reply.status_code == 409
    assert reply.json()["type"].endswith("/job-files-gone")
    assert (await client.get(f"/v1/jobs/{job.id}")).json()["status"] == "failed"


async def test_an_admin_tries_again_and_it_is_still_its_owners(
    api, admin, editor, ask, mark, working, ended
):
    async def tell_owner(run):
        return {"role": run.owner.role, "id": str(run.owner.user_id)}

    job = await ask("tell_owner")
    await mark(job, status="failed", finished_at=now())
    assert (await api.as_(admin).post(f"/v1/jobs/{job.id}/retry")).status_code == 202
    async with working(tell_owner=tell_owner):
        assert (await ended(job)).result == {"role": "editor", "id": str(editor.id)}


async def test_a_key_cancels_and_retries_only_what_it_could_have_started(
    api, editor, make_key, ask, mark
):
    reading = api.with_token(await make_key(editor, "items:read"))
    writing = api.with_token(await make_key(editor, "items:read", "items:write"))
    job = await ask("add", new=BY_EDITORS)
    for action, status in (("cancel", "queued"), ("retry", "failed")):
        await mark(job, status=status, finished_at=now() if status == "failed" else None)
        refused = await reading.post(f"/v1/jobs/{job.id}/{action}")
        assert refused.status_code == 403
        assert refused.json()["type"].endswith("/job-beyond-scopes")
        assert (await reading.get(f"/v1/jobs/{job.id}")).json()["status"] == status
        assert (await writing.post(f"/v1/jobs/{job.id}/{action}")).status_code in (200, 202)


async def test_a_repeat_with_the_same_key_cancels_once(api, editor, ask, recorded):
    job = await ask("count")
    headers = {"Idempotency-Key": "stop-it"}
    url = f"/v1/jobs/{job.id}/cancel"
    replies = [await api.as_(editor).post(url, headers=headers) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].json() == replies[1].json()
    assert len(await recorded()) == 1
