"""Who asked for a job hears of its end, by inbox and mail, and can go and get what it made."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import func, update
from tests.conftest import until

from pricebook.core.file_links import FileLinks, Linked
from pricebook.core.outbox import record
from pricebook.core.principal import Principal, Role
from pricebook.jobs.events import JobFinished
from pricebook.jobs.models import Job
from pricebook.jobs.service import NewJob, enqueue
from pricebook.notifications.letters import write

EXPORTED = {
    "rows": 1_000_000, "bytes": 133_700_000, "sha256": "canary", "filename": "items.csv.gz",
    "file": "/v1/exports/0198/file", "expires_at": "2099-11-29T10:00:00+00:00",
    "media_type": "application/gzip",
}  # fmt: skip
IMPORTED = {
    "mode": "apply", "applied": True, "rows": 5, "new": 1, "changed": 2, "unchanged": 1,
    "refused": 1, "has_errors_csv": True,
    "refusals": [{"line": 2, "column": "price", "value": "canary", "detail": "canary"}],
    "sample": [{"line": 3, "sku": "canary"}],
}  # fmt: skip


@pytest.fixture
def finish(session, expand):
    """Have a job end, and turn its end into what follows."""

    async def run(owner, kind, status="succeeded", *, is_told=True, params=None, **ended):
        asked = Principal(owner.id, Role(owner.role), owner.id)
        new = NewJob(kind=kind, params=params or {}, expected_seconds=1, is_told=is_told)
        job = await enqueue(session, asked, new)
        over = {"status": status, "finished_at": func.now(), **ended}
        await session.execute(update(Job).where(Job.id == job.id).values(over))
        record(session, JobFinished(job_id=job.id, kind=kind, status=status, owner_id=owner.id))
        await session.commit()
        await expand()
        return job

    return run


async def test_a_file_that_is_ready_is_told_of_with_all_but_its_content(
    editor, finish, mails, notifications
):
    job = await finish(editor, "export_file", result=EXPORTED)
    (told,) = await notifications()
    (mail,) = await mails()
    assert (told.kind, told.user_id, told.mail_id) == ("job_finished", editor.id, mail.id)
    assert (mail.kind, mail.user_id) == ("job_finished", editor.id)
    assert mail.data == told.data
    assert "canary" not in str(told.data)
    assert {**told.data, "occurred_at": None} == {
        "event": "job.finished", "job_id": str(job.id), "kind": "export_file",
        "status": "succeeded", "rows": 1_000_000, "bytes": 133_700_000,
        "filename": "items.csv.gz", "file": "/v1/exports/0198/file",
        "expires_at": "2099-11-29T10:00:00+00:00", "occurred_at": None,
    }  # fmt: skip


async def test_an_import_is_told_of_in_numbers(editor, finish, mails):
    await finish(editor, "import_items", result=IMPORTED, params={"name": "prices.csv"})
    (mail,) = await mails()
    assert "canary" not in str(mail.data)
    written = _written(mail)
    assert written.subject == "Your import is done: prices.csv"
    for line in ("New        1", "Changed    2", "Unchanged  1", "Refused    1"):
        assert line in written.text
    assert f"/v1/imports/{mail.data['job_id']}/errors.csv" in written.text


async def test_a_dry_run_says_that_nothing_is_changed(editor, finish, mails):
    checked = {**IMPORTED, "mode": "dry-run", "applied": False}
    await finish(editor, "import_items", result=checked)
    (mail,) = await mails()
    assert _written(mail).subject == "Your import is checked, and nothing is changed yet"


async def test_a_failure_is_told_in_its_own_words(editor, finish, mails):
    sentence = "The file has no header."
    await finish(editor, "import_items", "failed", error=sentence, params={"name": "prices.csv"})
    (mail,) = await mails()
    written = _written(mail)
    assert written.subject == "Your import failed: prices.csv"
    assert sentence in written.text
    assert sentence in written.html


async def test_who_cancels_is_not_told_nor_who_did_not_want_to_be(
    editor, finish, mails, notifications
):
    await finish(editor, "export_file", "cancelled")
    await finish(editor, "export_file", is_told=False, result=EXPORTED)
    assert (await mails(), await notifications()) == ([], [])


async def test_nobody_is_told_of_a_job_whose_owner_is_gone(
    make_user, session, finish, mails, notifications
):
    leaver = await make_user("editor")
    asked = Principal(leaver.id, Role.EDITOR, leaver.id)
    job = await enqueue(session, asked, NewJob(kind="export_file", params={}, expected_seconds=1))
    ids = {"job_id": job.id, "owner_id": leaver.id}
    record(session, JobFinished(**ids, kind="export_file", status="succeeded"))
    await session.delete(leaver)
    await session.commit()
    await finish(await make_user("editor"), "export_file", is_told=False)
    assert (await mails(), await notifications()) == ([], [])


@pytest.mark.parametrize(("channel", "told"), [("inbox", (False, 1)), ("email", (True, 0))])
async def test_people_choose_how_they_hear_of_it(
    api, editor, finish, mails, notifications, channel, told
):
    preferences = {"kinds": {"job_finished": {channel: False}}}
    reply = await api.as_(editor).patch("/v1/notifications/preferences", json=preferences)
    assert reply.json()["kinds"]["job_finished"][channel] is False
    await finish(editor, "export_file", result=EXPORTED)
    (notification,) = await notifications()
    assert (notification.is_in_inbox, len(await mails())) == told


async def test_the_mail_has_a_link_that_opens_the_file_and_nothing_else_keeps_it(
    editor, finish, mails, notifications, work, sink, settings
):
    await finish(editor, "export_file", result=EXPORTED)
    work()
    await until(lambda: sink.accepted)
    (letter,) = sink.accepted
    text = letter.get_body(("plain",)).get_content()
    link = urlsplit(re.search(r"https?://\S+signature=\S+", text)[0])
    asked = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert link.path == "/v1/exports/0198/file"
    linked = Linked(link.path, editor.id, editor.credentials_epoch)
    assert FileLinks(settings).opens(linked, int(asked["expires"]), asked["signature"])
    assert asked["signature"] in letter.get_body(("html",)).get_content()
    kept = str([one.data for one in (*await mails(), *await notifications())])
    assert asked["signature"] not in kept


async def test_without_a_key_to_sign_with_the_mail_names_the_way_with_a_token(
    editor, finish, work, sink, mail_settings
):
    await finish(editor, "export_file", result=EXPORTED)
    work(mail_settings.model_copy(update={"secret_key": None}))
    await until(lambda: sink.accepted)
    text = sink.accepted[0].get_body(("plain",)).get_content()
    assert "signature" not in text
    assert "GET http://127.0.0.1:8000/v1/exports/0198/file" in text


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (133_700_000, "133.7 MB")],
)
async def test_sizes_are_written_for_people(editor, finish, mails, size, shown):
    await finish(editor, "export_file", result={**EXPORTED, "bytes": size})
    (mail,) = await mails()
    assert f"Size       {shown}\n" in _written(mail).text


def _written(mail):
    said = {
        "user_name": "Ann", "email": "ann@example.com", "link": "https://prices.example.com",
        "public_url": "https://prices.example.com", "data": mail.data, "changes": (),
        "change_count": 0,
    }  # fmt: skip
    return write(mail.kind, said)
