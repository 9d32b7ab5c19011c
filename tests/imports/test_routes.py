"""The refused rows of an import, over HTTP: whose they are, and when there are any."""

from uuid import uuid4

import pytest

from pricebook.core.clock import now
from pricebook.core.principal import Principal, Role
from pricebook.jobs.models import Job
from pricebook.jobs.service import NewJob, enqueue

REFUSED = b"sku,price,line,reason\r\nH-1,cheap,2,price: must be a decimal number\r\n"


@pytest.fixture
def make_import(app, session, editor):
    """Make an import of the editor's that has ended, with its refused rows."""

    async def make(kind="import_items", status="succeeded", result=None) -> Job:
        name = f"imports/{uuid4()}.errors.csv"

        async def rows():
            yield REFUSED

        await app.state.files.write(name, rows())
        new = NewJob(kind=kind, params={"errors_file": name}, expected_seconds=1, role=Role.EDITOR)
        job = await enqueue(session, Principal(editor.id, Role.EDITOR, editor.id), new)
        job.status, job.result = status, result
        job.finished_at = None if status == "running" else now()
        await session.commit()
        return job

    return make


def path_of(job: Job) -> str:
    return f"/v1/imports/{job.id}/errors.csv"


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_refused_rows_can_be_saved_as_a_file(api, editor, admin, make_import, status):
    job = await make_import(status=status, result={"has_errors_csv": True})
    for user in (editor, admin):
        reply = await api.as_(user).get(path_of(job))
        assert reply.status_code == 200
        assert reply.content == REFUSED
        assert reply.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        assert reply.headers["content-disposition"] == 'attachment; filename="errors.csv"'
        assert reply.headers["content-length"] == str(len(REFUSED))


async def test_refused_rows_come_in_ranges_and_only_once(api, editor, make_import):
    path = path_of(await make_import(result={"has_errors_csv": True}))
    part = await api.as_(editor).get(path, headers={"Range": "bytes=4-8"})
    assert (part.status_code, part.content) == (206, REFUSED[4:9])
    known = {"If-None-Match": part.headers["etag"]}
    assert (await api.as_(editor).get(path, headers=known)).status_code == 304
    head = await api.as_(editor).head(path)
    assert (head.status_code, head.content) == (200, b"")


async def test_refused_rows_are_for_who_imported_them_and_for_admins(
    api, viewer, make_user, make_import
):
    path = path_of(await make_import(result={"has_errors_csv": True}))
    for stranger in (viewer, await make_user("editor")):
        reply = await api.as_(stranger).get(path)
        assert reply.status_code == 404
        assert reply.json()["type"] == "/problems/errors-not-found"


@pytest.mark.parametrize(
    "made",
    [
        {"result": {"has_errors_csv": False}},
        {"result": {}},
        {"result": None},
        {"result": None, "status": "running"},
        {"result": {"has_errors_csv": True}, "kind": "export_file"},
    ],
    ids=str,
)
async def test_without_refused_rows_there_is_no_file(api, editor, make_import, made):
    reply = await api.as_(editor).get(path_of(await make_import(**made)))
    assert reply.status_code == 404
    assert reply.json()["type"] == "/problems/errors-not-found"


async def test_refused_rows_that_have_expired_are_told_as_such(api, app, editor, make_import):
    job = await make_import(result={"has_errors_csv": True})
    await app.state.files.delete([job.params["errors_file"]])
    reply = await api.as_(editor).get(path_of(job))
    assert reply.status_code == 404
    assert reply.json()["type"] == "/problems/file-expired"
