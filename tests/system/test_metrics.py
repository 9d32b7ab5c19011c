"""/metrics: what all processes of an address have counted, and nothing that grows without bound."""

import asyncio
import json
import os
import re
import signal
import subprocess
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from tests.conftest import ROOT, until
from tests.faults.conftest import add_endpoint, add_events, delivering
from tests.processes import ForkedWorker
from tests.receiver import Receiver, receiving
from tests.test_serving import Served, eventually
from tests.tools import free_port, needed

from pricebook.core.embedded import Valkey
from pricebook.core.operating_groups import MetricsSettings
from pricebook.serving import listen

PROMETHEUS = ROOT / "deploy" / "prometheus"
REQUESTS = "pricebook_http_request_duration_seconds_count"

_RULE = re.compile(r"alert: (\w+)\n\s+expr: (?:>-\n)?((?:.|\n)*?)\n\s+(?:for|labels):")

Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples_of(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return sum(number for own, number in samples.get(name, ()) if labels.items() <= own.items())


async def scrape(api: Any) -> Samples:
    reply = await api.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return samples_of(reply.text)


async def test_requests_are_counted_by_the_path_of_the_document(api, viewer, make_item):
    item = await make_item()
    of_item = {"method": "GET", "route": "/v1/items/{item_id}", "status": "200"}
    before = await scrape(api)
    for _ in range(3):
        await api.as_(viewer).get(f"/v1/items/{item.id}")
    await api.get(f"/v1/items/{item.id}")
    after = await scrape(api)
    assert value(after, REQUESTS, **of_item) - value(before, REQUESTS, **of_item) == 3
    refused = of_item | {"status": "401"}
    assert value(after, REQUESTS, **refused) - value(before, REQUESTS, **refused) == 1


async def test_paths_and_methods_that_are_none_make_no_names_of_their_own(api):
    for path in ("/a", "/b", "/v1/items/none", "/%F0%9F%98%80"):
        await api.get(path)
    await api.request("BREW", "/coffee")
    found = (await scrape(api))[REQUESTS]
    routes = {labels["route"] for labels, _ in found}
    assert "none" in routes
    assert not routes & {"/a", "/b", "/v1/items/none", "/coffee"}
    assert "BREW" not in {labels["method"] for labels, _ in found}


async def test_what_waits_is_told_from_the_database(api, session):
    assert value(await scrape(api), "pricebook_database_up") == 1
    await add_events(session, 3)

    async def is_told() -> bool:
        samples = await scrape(api)
        age = value(samples, "pricebook_oldest_due_seconds", kind="events")
        return value(samples, "pricebook_pending", kind="events") == 3 and age > 0

    await until(is_told)


async def test_without_its_database_a_process_tells_what_it_knows(make_api):
    away = await make_api(database_url=SecretStr("postgresql+asyncpg://x:y@127.0.0.1:9/none"))
    samples = await scrape(away)
    assert samples["pricebook_database_up"] == [({}, 0.0)]
    assert "pricebook_pending" not in samples
    assert REQUESTS in samples or "pricebook_build_info" in samples


@pytest.mark.parametrize(
    ("sent", "status"), [(None, 401), ("wrong", 401), ("é", 401), ("a token", 200)]
)
async def test_a_token_keeps_others_out(make_api, sent, status):
    guarded = await make_api(metrics=MetricsSettings(token=SecretStr("a token")).model_dump())
    headers = {"Authorization": f"Bearer {sent}".encode()} if sent else {}
    assert (await guarded.get("/metrics", headers=headers)).status_code == status


async def test_it_answers_in_a_rush(make_api):
    busy = await make_api(http={"max_concurrent_requests": 1})
    busy.app.state.traffic.under_way = 5
    assert (await busy.get("/v1/items")).status_code == 503
    assert (await busy.get("/metrics")).status_code == 200


@pytest.fixture
def served(settings) -> Served:
    server = Served(settings)
    yield server
    server.process.terminate()
    server.process.wait()


def test_processes_of_an_address_answer_for_each_other_and_for_their_dead(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}"

    def seen(name: str, **labels: str) -> float:
        return value(samples_of(httpx2.get(f"{url}/metrics", timeout=60).text), name, **labels)

    eventually(lambda: seen("pricebook_processes", kind="api") == 2)
    # Each on a connection of its own, so that both processes get some.
    for _ in range(20):
        assert served.ping() == "pong"
    eventually(lambda: seen(REQUESTS, route="/ping") == 20)
    os.kill(served.children()[0], signal.SIGKILL)
    assert seen(REQUESTS, route="/ping") == 20
    eventually(lambda: len(served.children()) == 2)
    eventually(lambda: seen("pricebook_processes", kind="api") == 2)
    eventually(lambda: seen("pricebook_database_connections_limit", pool="reads") == 2 * 8)
    # Nothing is told by process, or it would stay when the process has gone.
    assert "pid=" not in httpx2.get(f"{url}/metrics", timeout=60).text


@pytest.fixture
async def told(settings, session, api, viewer, editor, make_item, tmp_path):
    """What an API and a worker tell that have done some of everything."""
    metrics = MetricsSettings(worker_port=free_port(), token=SecretStr("a token"))
    # Its sign of life is to be seen by no other test.
    valkey = Valkey(tmp_path)
    valkey.start()
    ours = delivering(settings, metrics=metrics, redis_url=SecretStr(valkey.url))
    worker = ForkedWorker(ours, tmp_path / "worker.log")
    receiver = Receiver()
    async with receiving(receiver, listen("127.0.0.1", 0)) as url:
        await add_endpoint(session, ours, f"{url}/a")
        await add_events(session, 2)
        await make_item()
        reply = await api.as_(viewer).get("/v1/exports/items.csv")
        assert reply.status_code == 200
        csv = {"Content-Type": "text/csv"}
        body = b"sku,name,price,currency\nA-1,Rope,1,EUR\n"
        reply = await api.as_(editor).post("/v1/imports/items", content=body, headers=csv)
        assert reply.status_code == 202
        worker.start()
        try:
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{metrics.worker_port}"
            ) as client:
                yield await _told(client, api)
        finally:
            worker.close()
            valkey.stop()


async def _told(client: httpx2.AsyncClient, api: Any) -> str:
    headers = {"Authorization": "Bearer a token"}

    async def has_worked() -> bool:
        try:
            assert (await client.get("/metrics")).status_code == 401
            text = (await client.get("/metrics", headers=headers)).text
        except httpx2.TransportError:
            return False
        samples = samples_of(text)
        attempts = "pricebook_delivery_attempt_duration_seconds_count"
        delivered = value(samples, attempts, lane="webhooks", outcome="delivered")
        return delivered == 2 and value(samples, "pricebook_job_duration_seconds_count") == 1

    await until(has_worked, seconds=30)
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    assert (await client.get("/anything")).status_code == 404
    ours = (await client.get("/metrics", headers=headers)).text
    return ours + (await api.get("/metrics")).text


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """The metrics that an expression names, and the labels that it asks for or groups by."""
    groups = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    matchers = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression)
    labels = {one.strip() for group in groups for one in group.split(",")} | set(matchers)
    return set(re.findall(r"\bpricebook_\w+", expression)), labels


def expressions() -> dict[str, str]:
    board = json.loads((ROOT / "deploy" / "grafana" / "pricebook.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    rules = (PROMETHEUS / "alerts.yml").read_text()
    return found | dict(_RULE.findall(rules))


async def test_all_that_dashboard_and_alerts_name_is_there(told: str) -> None:
    samples = samples_of(told)
    asked = expressions()
    assert len(asked) > 25
    # Prometheus adds these itself.
    others = {"instance", "job", "le"}
    for where, expression in asked.items():
        names, labels = names_and_labels(expression)
        assert names or "up{" in expression, where
        for name in names:
            assert name in samples, f"{where}: {name}"
        known = {label for name in names for own, _ in samples[name] for label in own} | others
        assert labels <= known, where


async def test_prometheus_is_content_with_names_units_and_help(told: str) -> None:
    promtool = needed("promtool", "prometheus")
    # Either's text is whole; what the API says comes second.
    own = told[told.rindex("# HELP pricebook_http_request_duration_seconds ") :]
    command = [promtool, "check", "metrics"]
    checked = await asyncio.to_thread(
        subprocess.run, command, input=own, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_reads_what_is_shipped(arguments: tuple[str, ...]) -> None:
    command = [needed("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_shipped_can_be_found_wanting() -> None:
    names, labels = names_and_labels(
        'sum by (pool, kind) (rate(pricebook_a_total{instance=~"$x"}[5m]))'
    )
    assert (names, labels) == ({"pricebook_a_total"}, {"pool", "kind", "instance"})
