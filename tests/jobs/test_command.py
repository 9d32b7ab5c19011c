"""`pricebook jobs`, as a person runs it; the streams of this API end twenty times a second."""

import asyncio
import signal
from uuid import uuid4

import pytest
from tests.conftest import until
from tests.jobs.conftest import wait_for_ever
from tests.processes import ForkedApi
from tests.shell import Shell

from pricebook.jobs.run import JobRefused

SENTENCE = ("The file has no header.",)


@pytest.fixture
async def shell(settings, editor, make_key, tmp_path):
    """A folder where commands run as an editor with a key."""
    server = ForkedApi(settings, tmp_path / "api.log")
    server.start()
    folder = tmp_path / "shell"
    folder.mkdir()
    yield Shell(folder, url=server.url, api_key=await make_key(editor, "items:read"))
    server.close()


@pytest.fixture
def steps():
    """Work that says three lines, and waits for leave before the last."""
    may_end = asyncio.Event()

    async def walk(run):
        run.progress("walking", 1, 2)
        run.say("Left foot.")
        run.say("Right foot \x1b[31min red.")
        await may_end.wait()
        run.say("There.")
        return {"steps": 2}

    return walk, may_end


async def test_jobs_are_listed_and_shown(shell, ask, working, ended, viewer):
    async def count(_run):
        return {"counted": 3}

    async def refuse(_run):
        raise JobRefused(*SENTENCE)

    first, second = await ask("count"), await ask("refuse")
    await ask("count", owner=viewer)
    async with working(count=count, refuse=refuse):
        await ended(first)
        await ended(second)
    listed = await shell.run("jobs", "list")
    assert listed.code == 0, listed.said
    _head, *rows = listed.out.splitlines()
    assert [row.split()[:3] for row in rows] == [
        [str(second.id), "refuse", "failed"],
        [str(first.id), "count", "succeeded"],
    ]
    failed = await shell.run("jobs", "list", "--status", "failed", "--kind", "refuse")
    assert str(first.id) not in failed.out
    assert str(second.id) in failed.out
    assert "There are more" in (await shell.run("jobs", "list", "--limit", "1")).said
    shown = await shell.run("jobs", "show", str(first.id))
    assert '"counted": 3' in shown.out
    assert "succeeded" in shown.out
    assert "The file has no header." in (await shell.run("jobs", "show", str(second.id))).out


async def test_a_job_is_watched_to_its_end(shell, ask, working, steps):
    walk, may_end = steps
    job, shown = await ask("walk"), bytearray()
    async with working(walk=walk):
        watching = asyncio.create_task(
            shell.run_at_terminal("jobs", "watch", str(job.id), answers={}, shown=shown)
        )
        await until(lambda: b"Walking" in shown and b"50%" in shown)
        may_end.set()
        ended = await watching
    assert (ended.code, ended.out) == (0, "Succeeded.\n")
    assert "Walking" in ended.said
    assert "50%" in ended.said


async def test_to_watch_what_fails_says_so_and_ends_with_1(shell, ask, working):
    async def refuse(_run):
        raise JobRefused(*SENTENCE)

    job = await ask("refuse")
    async with working(refuse=refuse):
        ended = await shell.run("jobs", "watch", str(job.id))
    assert (ended.code, ended.out) == (1, "Failed: The file has no header.\n")


async def test_who_stops_watching_does_not_stop_the_job(shell, ask, working, read_job):
    job = await ask("wait")
    async with working(wait=wait_for_ever):
        watching = await shell.start("jobs", "watch", str(job.id))
        await asyncio.sleep(2)
        watching.send_signal(signal.SIGINT)
        await watching.communicate()
        assert (await read_job(job)).status == "running"
        assert (await read_job(job)).cancel_requested_at is None


async def test_the_log_is_printed_as_it_grows_each_line_once(
    shell, ask, working, steps, read_job, read_log
):
    walk, may_end = steps
    job = await ask("walk")
    async with working(walk=walk):
        printing = asyncio.create_task(shell.run("jobs", "log", str(job.id)))
        await until(lambda: _is_at(read_job, job, "walking"))
        so_far = await shell.run("jobs", "log", str(job.id), "--no-follow")
        may_end.set()
        printed = await printing
    lines = [line.partition(" ")[2] for line in printed.out.splitlines()]
    assert lines == ["Started.", "Left foot.", "Right foot ·[31min red.", "There.", "Done."]
    assert "There." not in so_far.out
    assert "Started." in so_far.out


async def test_a_job_is_cancelled_and_tried_again(shell, ask, read_job):
    job = await ask("count")
    cancelled = await shell.run("jobs", "cancel", str(job.id))
    assert (cancelled.code, cancelled.out) == (0, "Cancelled.\n")
    again = await shell.run("jobs", "cancel", str(job.id))
    assert again.code == 1
    assert again.said.startswith("pricebook: The job has ended")
    retried = await shell.run("jobs", "retry", str(job.id))
    assert (retried.code, (await read_job(job)).status) == (0, "queued")


@pytest.mark.parametrize("command", ["show", "watch", "log", "cancel", "retry"])
async def test_a_job_that_nobody_knows_is_said_to_be_so(shell, command):
    ended = await shell.run("jobs", command, str(uuid4()))
    assert (ended.code, ended.out) == (1, "")
    assert ended.said.startswith("pricebook: There is no such job")
    assert len(ended.said.splitlines()) == 1


async def _is_at(read_job, job, phase):
    return (await read_job(job)).phase == phase
