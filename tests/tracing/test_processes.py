"""Traces and log lines of real processes, and collectors that are of no help."""

import asyncio
import json
import signal
import time

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from tests.conftest import until
from tests.processes import ForkedApi, ForkedWorker

from pricebook.core.settings import LogSettings, TracingSettings, WebhookSettings
from pricebook.core.span_export import endpoint


@pytest.fixture
def forked(traced_settings, tmp_path):
    """An API process and a worker, which try a webhook twice; not started yet."""
    webhooks = {"retry_delays_seconds": (0.05,)}
    own = traced_settings.model_copy(
        update={
            "webhooks": WebhookSettings(**traced_settings.webhooks.model_dump() | webhooks),
            "log": LogSettings(format="json", level="INFO"),
        }
    )
    processes = ForkedApi(own, tmp_path / "api.log"), ForkedWorker(own, tmp_path / "worker.log")
    yield processes
    for process in processes:
        process.close()


def lines_of(path):
    """Ours: uvicorn's own, as it starts and ends, are text here."""
    return [json.loads(one) for one in path.read_text().splitlines() if one.startswith("{")]


async def ended(process) -> float:
    """Tell a process to stop, and return how long that took."""
    began = time.monotonic()
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait)
    # uvicorn ends as by the signal, once all is done.
    assert process.exit_code in (0, -signal.SIGTERM)
    return time.monotonic() - began


async def test_two_processes_make_one_trace_and_their_logs_name_it(
    forked, api, collector, editor, make_item, make_endpoint, listener, tmp_path, traced_settings
):
    item, hook = await make_item(), await make_endpoint(events=["item.price_changed"])
    listener.answer("/hook", 500)
    for process in forked:
        process.start()
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}", "X-Request-ID": "till-7:0001"}
    async with httpx2.AsyncClient(base_url=forked[0].url, timeout=30) as client:
        new = {"price": "13.75"}
        reply = await client.patch(f"/v1/items/{item.id}", json=new, headers=headers)
        assert reply.status_code == 200, reply.text
    written = tmp_path / "worker.log"
    await until(lambda: "delivery is dead" in written.read_text())
    # Nothing would be sent for seconds: what is there is sent as they end.
    for process in forked:
        assert await ended(process) < traced_settings.stop_seconds
    (request,) = collector.named("PATCH /v1/items/{item_id}")
    attempts = collector.named("POST webhook")
    assert {one.trace_id for one in collector.spans} == {request.trace_id}
    assert (request.service, attempts[0].service) == ("pricebook-api", "pricebook-worker")

    (line,) = [one for one in lines_of(tmp_path / "api.log") if one["event"] == "request"]
    assert (line["request_id"], line["user_id"]) == ("till-7:0001", str(editor.id))
    assert (line["trace_id"], line["span_id"]) == (request.trace_id, request.id)
    told = [one for one in lines_of(written) if one.get("lane") == "webhooks"]
    assert [(one["event"], one["level"], one["attempt"]) for one in told] == [
        ("attempt failed", "info", 1),
        ("delivery is dead", "warning", 2),
    ]
    for line, attempt in zip(told, attempts, strict=True):
        assert line["error"] == "answered 500"
        assert line["request_id"] == "till-7:0001"
        assert (line["trace_id"], line["span_id"]) == (attempt.trace_id, attempt.id)
        assert line["webhook_id"] == str(hook.id)
        for name in ("delivery_id", "event_id"):
            assert line[name] == attempt.said[f"pricebook.{name}"]


@pytest.fixture
async def silent():
    """A collector that takes connections, and answers nothing."""
    connections = []
    server = await asyncio.start_server(lambda *ends: connections.append(ends), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for _reader, writer in connections:
        writer.transport.abort()
    server.close()


async def test_a_collector_that_hangs_holds_up_no_end(silent, settings, api, viewer):
    tracing = TracingSettings(url=SecretStr(silent))
    process = ForkedApi(settings.model_copy(update={"tracing": tracing}))
    process.start()
    try:
        headers = {"Authorization": f"Bearer {api.tokens[viewer.id]}"}
        async with httpx2.AsyncClient(base_url=process.url, timeout=30, headers=headers) as client:
            assert (await client.get("/v1/items")).status_code == 200
        assert await ended(process) < settings.stop_seconds / 2
    finally:
        process.close()


async def test_a_collector_that_is_away_costs_one_line(trace, viewer, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    api = (await trace(url=SecretStr("http://nobody:canary@127.0.0.1:1"))).as_(viewer)
    with capture_logs() as lines:
        for _ in range(5):
            assert (await api.get("/v1/items")).status_code == 200
            await asyncio.sleep(0.1)
        await until(lambda: lines)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("the collector takes no spans; they are lost", "warning")
    ]


@pytest.mark.parametrize(
    ("url", "posted_to"),
    [
        ("http://otel:4318", "http://otel:4318/v1/traces"),
        ("http://otel:4318/", "http://otel:4318/v1/traces"),
        ("https://otel/in/v1/traces", "https://otel/in/v1/traces"),
        ("https://otel/in?key=1", "https://otel/in/v1/traces?key=1"),
    ],
)
def test_the_url_is_the_collectors_or_that_of_its_traces(url, posted_to):
    assert endpoint(TracingSettings(url=SecretStr(url))) == posted_to


async def test_the_usual_variables_count(trace, collector, viewer, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "prices")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
    await (await trace()).as_(viewer).get("/v1/items")
    (request,) = await collector.until("GET /v1/items")
    assert request.service == "prices"
    assert collector.headers[0]["x-team"] == "shop"
