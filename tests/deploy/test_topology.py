"""What the compose file and the manifests put together, as plain processes on this machine."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import PASSWORD, until
from tests.proxies import Nginx
from tests.receiver import Receiver, receiving
from tests.shell import Shell
from tests.tools import free_port

from pricebook.serving import listen

ADMIN = "admin@example.com"
LONGEST_STOP_SECONDS = 10


@dataclass
class Topology:
    """Two API processes behind nginx, a worker, and the servers of the tests."""

    nginx: Nginx
    api: tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]
    worker: asyncio.subprocess.Process

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        return (*self.api, self.worker)


@pytest.fixture
def shell(tmp_path: Path, scratch: str, urls: dict[str, str], worker_name: str) -> Shell:
    """A shell whose secrets lie in files, as containers and services get them."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    number = int("".join(filter(str.isdigit, worker_name)) or 0) + 8
    (secrets / "pricebook_database_url").write_text(f"{scratch}\n")
    (secrets / "pricebook_redis_url").write_text(f"{urls['redis'].removesuffix('/0')}/{number}\n")
    (secrets / "pricebook_secret_key").write_text("k" * 32 + "\n")
    return Shell(
        tmp_path,
        secrets_dir=str(secrets),
        http__trusted_proxies='["127.0.0.1/32"]',
        webhooks__allowed_networks='["127.0.0.0/8"]',
        data_dir=str(tmp_path / "data"),
        log__access="false",
    )


async def is_answering(port: int) -> bool:
    try:
        async with httpx2.AsyncClient() as client:
            reply = await client.get(f"http://127.0.0.1:{port}/health/live")
    except httpx2.TransportError:
        return False
    return reply.status_code == 200


@asynccontextmanager
async def started(shell: Shell, folder: Path) -> AsyncIterator[Topology]:
    ports = [free_port() for _ in range(3)]
    null = asyncio.subprocess.DEVNULL
    api = (
        await shell.start("serve", stderr=null, port=str(ports[0])),
        await shell.start("serve", stderr=null, port=str(ports[1])),
    )
    worker = await shell.start("worker", stderr=null, metrics__worker_port=str(ports[2]))
    nginx = Nginx(folder, ports[:2])
    try:
        with nginx.running():
            for port in ports:
                await until(lambda port=port: is_answering(port), seconds=60)
            yield Topology(nginx, api, worker)
    finally:
        for process in (*api, worker):
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def topology(shell: Shell, tmp_path: Path) -> AsyncIterator[Topology]:
    assert (await shell.run("migrate")).code == 0
    made = await shell.run("create-admin", "--email", ADMIN, admin_password=PASSWORD)
    assert made.code == 0, made.said
    async with started(shell, tmp_path) as running:
        yield running


async def logged_in(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/v1/auth/token", data={"username": ADMIN, "password": PASSWORD})
    assert reply.status_code == 200, reply.text
    client.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"


async def made_item(client: httpx2.AsyncClient, sku: str) -> dict[str, Any]:
    new = {"sku": sku, "name": "Hammer", "price": "12.50", "currency": "EUR"}
    reply = await client.post("/v1/items", json=new)
    assert reply.status_code == 201, reply.text
    return reply.json()


async def is_read(client: httpx2.AsyncClient, item: dict[str, Any], times: int) -> None:
    for number in range(times):
        found = await client.get(f"/v1/items/{item['id']}")
        assert found.status_code == 200, number


def children_of(process: asyncio.subprocess.Process) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


async def test_what_is_deployed_works_goes_on_without_one_and_stops_in_time(
    topology: Topology,
) -> None:
    receiver = Receiver()
    async with (
        topology.nginx.client() as client,
        receiving(receiver, listen("127.0.0.1", 0)) as url,
    ):
        await logged_in(client)
        reply = await client.post("/v1/webhooks", json={"url": f"{url}/shop"})
        assert reply.status_code == 201, reply.text

        item = await made_item(client, "HAM-1")
        await until(lambda: receiver.taken["/shop"], seconds=20)
        exported = await client.get("/v1/exports/items.csv")
        assert "HAM-1" in exported.text
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/metrics")).status_code == 404

        (child,) = children_of(topology.api[0])
        os.kill(child, signal.SIGKILL)
        await is_read(client, item, 20)
        topology.api[0].kill()
        await topology.api[0].wait()
        await is_read(client, item, 20)
        await made_item(client, "HAM-2")

    began = time.monotonic()
    for process in topology.processes[1:]:
        process.send_signal(signal.SIGTERM)
    codes = [await process.wait() for process in topology.processes[1:]]
    assert time.monotonic() - began < LONGEST_STOP_SECONDS
    assert codes == [0, 0]
