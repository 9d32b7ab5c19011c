"""From the request to the mail's link, through an API process, a worker and a mail server."""

import re

import httpx2
import pytest
from pydantic import SecretStr
from tests.conftest import until
from tests.processes import ForkedApi, ForkedWorker
from tests.sink import Sink, serving

from pricebook.core.settings import LogSettings, MailSettings


@pytest.fixture
async def sink():
    async with serving(Sink()) as served:
        yield served


@pytest.fixture
def logs(tmp_path):
    return [tmp_path / "api.log", tmp_path / "worker.log"]


@pytest.fixture
def at_work(settings, sink, logs):
    """Both processes; each writes every line that it can to its log."""
    own = settings.model_copy(
        update={
            "mail": MailSettings(url=SecretStr(sink.url)),
            "log": LogSettings(format="json", level="DEBUG", access=True),
        }
    )
    api = ForkedApi(own, log=logs[0])
    worker = ForkedWorker(own.model_copy(update={"public_url": api.url}), log=logs[1])
    for process in (api, worker):
        process.start()
    yield api
    for process in (worker, api):
        process.close()


async def test_who_asks_for_a_file_gets_a_mail_whose_link_is_the_file(
    at_work, api, editor, make_item, sink, logs
):
    for number in range(3):
        await make_item(sku=f"HAM-{number}", cost="7.25", name="Häm, \"the\" '=hammer'")
    token = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    async with httpx2.AsyncClient(base_url=at_work.url, timeout=30) as client:
        asked = {"resource": "items", "compression": "gzip"}
        reply = await client.post("/v1/exports", json=asked, headers=token)
        assert reply.status_code == 202, reply.text
        await until(lambda: sink.accepted, seconds=30)
        job = (await client.get(reply.headers["location"], headers=token)).json()
        (letter,) = sink.accepted
        assert letter["Subject"] == f"Your export is ready: {job['result']['filename']}"
        text = letter.get_body(("plain",)).get_content()
        link = re.search(r"http\S+signature=(\S+)", text)
        by_link = await client.get(link[0])
        by_token = await client.get(job["result"]["file"], headers=token)
    assert by_link.status_code == by_token.status_code == 200
    assert by_link.content == by_token.content
    assert by_link.headers["content-disposition"] == (
        f'attachment; filename="{job["result"]["filename"]}"'
    )
    written = "".join(path.read_text() for path in logs)
    assert f'"path":"{job["result"]["file"]}"' in written
    for secret in (link[1], api.tokens[editor.id]):
        assert secret not in written
