"""The samples for nginx and HAProxy: read by the programs themselves, and nginx is used."""

import re
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
from tests.conftest import ROOT
from tests.processes import ForkedApi
from tests.proxies import NAME, Nginx, certificate
from tests.tools import needed

from pricebook.core.settings import HttpSettings, LimitSettings, Settings

HAPROXY = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


@pytest.fixture
def nginx(settings: Settings, start: Callable[..., ForkedApi], tmp_path: Path) -> Nginx:
    """One before an API that believes it, and lets nobody but it ask often."""
    changes = {
        "http": HttpSettings(trusted_proxies=("127.0.0.1/32",)),
        "limits": LimitSettings(anonymous_requests=5),
    }
    server = start(ForkedApi, settings.model_copy(update=changes))
    return Nginx(tmp_path, [int(server.url.rpartition(":")[2])])


@pytest.fixture
async def client(nginx: Nginx) -> AsyncIterator[httpx2.AsyncClient]:
    with nginx.running():
        async with nginx.client() as opened:
            yield opened


def test_nginx_reads_its_sample(tmp_path: Path) -> None:
    checked = Nginx(tmp_path, [8000, 8001]).check()
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr, checked.stderr


def test_haproxy_reads_its_sample(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(pem.read_bytes() + key.read_bytes())
    adapted = tmp_path / "haproxy.cfg"
    adapted.write_text(re.sub(r"crt \S+", f"crt {both}", HAPROXY.read_text()))
    command = [needed("haproxy"), "-c", "-f", str(adapted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr


async def test_it_leads_to_https_and_says_that_it_is(
    client: httpx2.AsyncClient, nginx: Nginx
) -> None:
    async with httpx2.AsyncClient() as plain:
        reply = await plain.get(f"http://127.0.0.1:{nginx.plain_port}/ping", headers={"Host": NAME})
    assert (reply.status_code, reply.headers["location"]) == (308, f"https://{NAME}/ping")
    secured = await client.get("/ping")
    assert secured.text == "pong"
    assert secured.headers["strict-transport-security"].startswith("max-age=")


async def test_what_is_measured_is_closed_to_the_outside(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/metrics")).status_code == 404


async def test_a_forged_address_gains_nothing(client: httpx2.AsyncClient) -> None:
    statuses = [
        (
            await client.get(
                "/v1/items/public",
                headers={"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": "for=203.0.113.9"},
            )
        ).status_code
        for number in range(7)
    ]
    assert statuses == [200] * 5 + [429] * 2


async def test_a_body_past_the_limit_is_refused_with_a_problem(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/v1/auth/token", content=b"x" * 5_000_000)
    assert reply.status_code == 413
    assert reply.headers["content-type"] == "application/problem+json"


async def test_without_a_process_behind_it_answers_with_a_problem(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, [1])
    with nginx.running():
        async with nginx.client() as client:
            reply = await client.get("/v1/items")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["type"] == "/problems/unavailable"
    assert reply.json()["request_id"]
