"""Files on their way in: stored as they come, refused before they do, gone if they break off."""

import asyncio
import gzip

import pytest
from sqlalchemy import text
from tests.conftest import until
from tests.uploading import CSV, ROWS, URL, Dripping, form, never_read, send

A_FILE = ('; name="file"; filename="C:\\lists\\spring.csv"', ROWS)


async def test_a_file_becomes_a_job_that_is_found_at_its_location(client, editor, jobs, stored):
    reply = await send(client, mode="apply")
    assert reply.status_code == 202
    (job,) = await jobs()
    assert reply.headers["location"] == f"/v1/jobs/{job.id}"
    assert reply.json()["id"] == str(job.id)
    assert (reply.json()["kind"], reply.json()["status"]) == ("import_items", "queued")
    assert (await client.get(reply.headers["location"])).json() == reply.json()
    assert (job.owner_id, job.role, job.scope) == (editor.id, "editor", "items:write")
    assert stored() == [job.params["file"]]
    assert job.inputs == [job.params["file"]]
    assert job.files == [job.params["file"], job.params["errors_file"]]


@pytest.mark.usefixtures("runner")
async def test_what_is_sent_packed_in_a_form_ends_as_items(client):
    packed = gzip.compress(
        "Artikel;Titel;Preis;Währung\r\nH-1;Möbel;12,50;EUR\r\n".encode("cp1252")
    )
    body, headers = form(('; name="file"; filename="liste.csv.gz"', packed))
    columns = ["Artikel:sku", "titel:name", "Preis:price", "Währung:currency"]
    reply = await send(client, body, headers, mode="apply", decimal="comma", column=columns)

    async def is_over() -> bool:
        job = (await client.get(reply.headers["location"])).json()
        return job["finished_at"] is not None

    await until(is_over)
    job = (await client.get(reply.headers["location"])).json()
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert (job["result"]["encoding"], job["result"]["delimiter"]) == ("windows-1252", "semicolon")
    item = (await client.get("/v1/items/by-sku/H-1")).json()
    assert (item["name"], item["price"], item["currency"]) == ("Möbel", "12.5000", "EUR")


async def test_what_was_sent_lies_in_the_store_as_it_came(client, jobs, folder, stored):
    packed = gzip.compress(ROWS)

    async def pieces():
        for start in range(0, len(packed), 10):
            yield packed[start : start + 10]

    for headers in ({"Content-Encoding": "gzip"}, {"Content-Type": "application/gzip"}):
        assert (await send(client, pieces(), headers)).status_code == 202
    for job in await jobs():
        assert (folder / job.params["file"]).read_bytes() == packed
        assert job.params["size"] == len(packed)


async def test_a_dry_run_is_what_happens_unless_asked_otherwise(client, jobs):
    await send(client)
    (job,) = await jobs()
    told = {name: job.params[name] for name in job.params.keys() - {"file", "errors_file"}}
    assert told == {
        "name": None,
        "size": len(ROWS),
        "mode": "dry-run",
        "skip_refused": False,
        "encoding": "auto",
        "delimiter": "auto",
        "decimal": "point",
        "guarded": True,
        "columns": {},
    }
    assert job.is_told


async def test_what_is_known_of_a_file_is_passed_on(client, jobs):
    query = {
        "mode": "apply",
        "skip_refused": "true",
        "encoding": "windows-1252",
        "delimiter": "semicolon",
        "decimal": "comma",
        "guarded": "false",
        "name": "Frühling.csv",
        "notify": "false",
        "column": ["Nr: intern:sku", "Preis:price"],
    }
    assert (await send(client, **query)).status_code == 202
    (job,) = await jobs()
    assert job.params["columns"] == {"Nr: intern": "sku", "Preis": "price"}
    passed = (job.params["skip_refused"], job.params["guarded"], job.params["name"])
    assert passed == (True, False, "Frühling.csv")
    assert (job.params["mode"], job.params["decimal"]) == ("apply", "comma")
    assert not job.is_told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "try"),
        ("encoding", "latin-1"),
        ("delimiter", ","),
        ("decimal", "."),
        ("guarded", "perhaps"),
        ("column", "Preis"),
        ("column", ":price"),
        ("column", "Preis:amount"),
        ("column", "a\x00b:price"),
        ("colour", "red"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name_and_nothing_is_read(
    client, name, value, stored
):
    reply = await send(client, never_read(), **{name: value})
    assert reply.status_code == 422
    (error,) = reply.json()["errors"]
    assert error["pointer"].startswith(f"query/{name}")
    assert stored() == []


async def test_who_may_not_import_is_refused_before_a_byte_is_read(api, viewer, stored):
    assert (await send(api, never_read())).status_code == 401
    assert (await send(api.as_(viewer), never_read())).status_code == 403
    assert stored() == []


async def test_a_form_with_one_file_is_as_good_as_the_file(client, jobs, folder):
    body, headers = form(A_FILE)

    async def bytewise():
        for byte in body:
            yield bytes([byte])

    for content in (body, bytewise()):
        assert (await send(client, content, headers)).status_code == 202
    for job in await jobs():
        assert (folder / job.params["file"]).read_bytes() == ROWS
        assert (job.params["name"], job.params["size"]) == ("spring.csv", len(ROWS))


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (('; name="note"', b"no file"),),
        (A_FILE, A_FILE),
        (A_FILE, ('; name="mode"', b"apply")),
        (('; name="mode"', b"apply"), A_FILE),
    ],
    ids=["nothing", "no file", "two files", "a field after it", "a field before it"],
)
async def test_a_form_of_anything_else_is_refused(client, parts, jobs, stored):
    body, headers = form(*parts)
    reply = await send(client, body, headers)
    assert (reply.status_code, reply.json()["type"]) == (422, "/problems/form-not-one-file")
    assert (stored(), await jobs()) == ([], [])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(A_FILE)[0][:-8], "multipart/form-data; boundary=xx"),
        (form(A_FILE)[0], "multipart/form-data; boundary=yy"),
        (form(A_FILE)[0], "multipart/form-data"),
        (form(A_FILE)[0], "multipart/form-data; boundary=" + "x" * 300),
        (b"sku,name", "multipart/form-data; boundary=xx"),
        (b"", "multipart/form-data; boundary=xx"),
    ],
    ids=["breaks off", "other boundary", "no boundary", "long boundary", "no form", "nothing"],
)
async def test_a_form_that_is_none_is_refused(client, body, content_type, stored):
    reply = await send(client, body, {"Content-Type": content_type})
    assert reply.status_code == 400
    assert reply.json()["type"] == "/problems/form-unreadable"
    assert stored() == []


@pytest.mark.parametrize("parts", [None, [('; name="file"; filename=""', b"")]])
async def test_an_empty_file_is_refused(client, parts, jobs, stored):
    body, headers = form(*parts) if parts else (b"", {})
    reply = await send(client, body, headers)
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/upload-empty"
    assert (stored(), await jobs()) == ([], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/vnd.ms-excel"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "gzip, gzip"},
        form(A_FILE)[1] | {"Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_what_is_no_csv_is_refused_before_it_is_read(client, headers):
    reply = await send(client, never_read(), headers)
    assert reply.status_code == 415
    assert reply.json()["type"] == "/problems/unsupported-media-type"


async def test_a_file_past_the_limit_is_refused_and_leaves_nothing(make_api, editor, stored):
    small = (await make_api(imports={"max_bytes": 1_000_000})).as_(editor)
    head = {"Content-Length": "1000001"}
    assert (await send(small, never_read(), head)).status_code == 413

    async def pieces():
        for _ in range(20):
            yield b"x" * 100_000

    reply = await send(small, pieces())
    assert (reply.status_code, reply.json()["type"]) == (413, "/problems/too-large")
    assert (await send(small, b"x" * 1_000_000)).status_code == 202
    assert len(stored()) == 1


async def test_only_uploads_may_be_large_or_packed(client):
    for path in ("/v1/items", "/v1/imports", "/v1/imports/items/x", "/imports/items/"):
        reply = await client.post(path, content=b"x" * 5_000_000, headers=CSV)
        assert reply.status_code == 413
        reply = await client.post(path, content=b"x", headers=CSV | {"Content-Encoding": "gzip"})
        assert reply.status_code == 415
    assert (await client.put(URL, content=b"x" * 5_000_000, headers=CSV)).status_code == 413


async def test_a_large_file_sent_where_imports_were_once_is_led_to_where_they_are(client):
    headers = CSV | {"Content-Length": "5000000"}
    reply = await client.post("/imports/items?mode=apply", content=never_read(), headers=headers)
    assert reply.status_code == 308
    assert reply.headers["location"] == "/v1/imports/items?mode=apply"


@pytest.mark.parametrize("prefix", ["", "/prices"])
async def test_behind_a_proxy_uploads_work_as_well(make_api, editor, prefix):
    proxied = (await make_api(http={"root_path": "/prices"})).as_(editor)
    reply = await proxied.post(f"{prefix}{URL}", content=b"x" * 5_000_000, headers=CSV)
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/prices/v1/jobs/{reply.json()['id']}"


async def test_past_the_limit_of_uploads_callers_come_back_later(make_api, editor, viewer):
    few = await make_api(imports={"uploads_at_once": 1}, http={"max_concurrent_requests": 1})
    body = Dripping()
    first = asyncio.create_task(send(few.as_(editor), body))
    await body.has_begun.wait()
    reply = await send(few.as_(editor), never_read())
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    # An upload does not count among the requests under way.
    assert (await few.as_(viewer).get("/v1/items")).status_code == 200
    body.may_end.set()
    assert (await first).status_code == 202
    assert (await send(few.as_(editor))).status_code == 202


async def test_an_upload_that_stalls_is_cut_off_and_leaves_nothing(make_api, editor, jobs, stored):
    hasty = (await make_api(imports={"stall_seconds": 0.05})).as_(editor)
    reply = await send(hasty, Dripping())
    assert reply.status_code == 408
    assert reply.json()["type"] == "/problems/upload-stalled"
    assert reply.headers["connection"] == "close"
    assert (stored(), await jobs()) == ([], [])


async def test_a_store_that_is_away_is_told_as_such(make_api, editor, jobs, tmp_path):
    blocked = tmp_path / "files"
    api = await make_api(files={"url": blocked.as_uri()})
    blocked.mkdir()
    (blocked / "imports").write_text("a file where a folder should be")
    reply = await send(api.as_(editor))
    assert reply.status_code == 503
    assert reply.json()["type"] == "/problems/unavailable"
    assert int(reply.headers["retry-after"]) >= 1
    assert await jobs() == []


async def test_an_upload_whose_job_cannot_be_written_is_deleted(client, session, stored):
    await session.execute(
        text("ALTER TABLE jobs ADD CONSTRAINT no_more CHECK (kind = '') NOT VALID")
    )
    await session.commit()
    try:
        reply = await send(client)
    finally:
        await session.execute(text("ALTER TABLE jobs DROP CONSTRAINT no_more"))
        await session.commit()
    assert reply.status_code == 500
    assert stored() == []
