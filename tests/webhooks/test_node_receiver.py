"""A receiver in another language, with a library that nobody here wrote, believes what it gets."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from tests.conftest import ROOT
from tests.webhooks.conftest import LOOPBACK

SOURCE = ROOT / "tests" / "webhooks" / "receiver"
LONGEST = 30


@pytest.fixture(scope="session")
def receiver_folder(request, worker_name) -> Path:
    """The receiver with the packages of its lock file, made once and kept in pytest's cache."""
    npm = shutil.which("npm")
    if npm is None:
        assert "CI" not in os.environ, "what CI runs is to leave nothing out"
        pytest.skip("the receiver needs Node and npm")
    folder = request.config.cache.mkdir(f"receiver-{worker_name}")
    lock = SOURCE / "package-lock.json"
    is_ready = (folder / "node_modules").exists()
    if not is_ready or (folder / lock.name).read_bytes() != lock.read_bytes():
        for source in SOURCE.glob("package*.json"):
            shutil.copy(source, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True)
    shutil.copy(SOURCE / "receiver.mjs", folder)
    return folder


class NodeReceiver:
    """A Node process: it is given secrets, and says what it makes of each request."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = ""

    async def says(self):
        async with asyncio.timeout(LONGEST):
            return json.loads(await self._process.stdout.readline())

    async def believe(self, secret: str) -> None:
        self._process.stdin.write(secret.encode() + b"\n")
        assert await self.says() == {"secret": "taken"}


@pytest.fixture
async def node(receiver_folder):
    process = await asyncio.create_subprocess_exec(
        "node",
        receiver_folder / "receiver.mjs",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    receiver = NodeReceiver(process)
    receiver.url = f"http://127.0.0.1:{(await receiver.says())['port']}"
    yield receiver
    process.kill()
    await process.communicate()


@pytest.fixture
def worker(settings):
    """A worker process as in production, which may send to this machine."""
    env = os.environ | {
        "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
        "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
        "PRICEBOOK_SECRET_KEY": settings.secret_key.get_secret_value(),
        "PRICEBOOK_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "PRICEBOOK_STOP_SECONDS": "2",
    }
    process = subprocess.Popen([sys.executable, "-m", "pricebook.worker"], env=env)
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


async def test_promise_14_a_node_receiver_believes_it(
    node, worker, make_api, admin, editor, make_item
):
    api = await make_api(webhooks={"allowed_networks": LOOPBACK})
    item = await make_item(sku="HAMMER", price="12.5000")
    wish = {"url": f"{node.url}/prices?shop=7", "events": ["item.price_changed"]}
    webhook = (await api.as_(admin).post("/v1/webhooks", json=wish)).json()
    await node.believe(webhook["secret"])

    async def change_price(price):
        reply = await api.as_(editor).patch(f"/v1/items/{item.id}", json={"price": price})
        assert reply.status_code == 200
        return await node.says()

    heard = await change_price("13.0000")
    assert heard["verified"]
    assert heard["told"]["type"] == "item.price_changed"
    assert heard["told"]["data"]["new_price"] == "13.0000"

    rotated = await api.as_(admin).post(f"/v1/webhooks/{webhook['id']}/rotate-secret")
    # While both sign, a receiver that knows only the old secret goes on, and so does a new one.
    assert (await change_price("14.0000"))["verified"]
    await node.believe(rotated.json()["secret"])
    heard = await change_price("15.0000")
    assert heard["verified"]

    async with httpx2.AsyncClient() as stranger:
        headers = {name: heard["headers"][name] for name in heard["headers"] if "webhook" in name}
        again = await stranger.post(node.url, content=heard["body"], headers=headers)
        assert (again.status_code, (await node.says())["verified"]) == (204, True)
        cheaper = heard["body"].replace("15.0000", "1.0000")
        tampered = await stranger.post(node.url, content=cheaper, headers=headers)
        assert (tampered.status_code, (await node.says())["verified"]) == (400, False)
