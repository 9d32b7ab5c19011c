"""`pricebook up`, for real: it serves, replaces what dies, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.tools import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PASSWORD = "an old map of the harbour"
PATIENCE_SECONDS = 90


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return outcome


def parent_of(pid: int) -> int | None:
    """The parent of a process that runs; None for one that has ended, reaped or not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = status.rpartition(")")[2].split()[:2]
    return None if state in "ZX" else int(parent)


def is_running(pid: int) -> bool:
    return parent_of(pid) is not None


class Up:
    """One `pricebook up` in a data folder."""

    def __init__(
        self, folder: Path, *arguments: str, log_name: str = "log", **settings: str
    ) -> None:
        self.folder = folder
        self.port = int(settings.get("port") or free_port())
        self.log = folder.parent / f"{folder.name}.{log_name}"
        env = {name: text for name, text in os.environ.items() if "PRICEBOOK" not in name}
        mine = {
            "data_dir": str(folder),
            "port": str(self.port),
            "admin_password": PASSWORD,
            "log__level": "WARNING",
            # No load balancer looks on.
            "drain_seconds": "0",
            **settings,
        }
        env |= {f"PRICEBOOK_{name.upper()}": text for name, text in mine.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pricebook.cli", "up", *arguments],
                env=env,
                stdout=log,
                stderr=log,
            )

    @property
    def run_file(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> "Up":
        eventually(lambda: self.process.poll() is not None or "is up" in self.text)
        assert self.process.poll() is None, self.text
        return self

    def pids(self) -> dict[str, int]:
        """The child processes by name."""
        run = self.run_file
        postgres = (self.folder / "postgres" / "18" / "postmaster.pid").read_text().split()[0]
        valkey = (self.folder / "valkey" / "pid").read_text()
        return {
            "api": run["api"]["pids"][0],
            "worker": run["worker"]["pids"][0],
            "postgres": int(postgres),
            "valkey": int(valkey),
        }

    def family(self) -> set[int]:
        """Every process that descends from this one, itself included."""
        parents = {
            int(entry.name): parent_of(int(entry.name))
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal()
        }
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def log_in(self) -> str:
        form = {"username": "admin@example.com", "password": PASSWORD}
        reply = httpx2.post(f"{self.run_file['api']['url']}/v1/auth/token", data=form, timeout=30)
        reply.raise_for_status()
        return str(reply.json()["access_token"])

    def get(self, path: str, token: str) -> httpx2.Response:
        return httpx2.get(
            f"http://127.0.0.1:{self.port}{path}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )

    def stop(self, told: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(told)
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        family = self.family()
        self.process.kill()
        self.process.wait()
        eventually(lambda: not any(map(is_running, family)))


StartUp = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartUp]:
    started: list[Up] = []

    def make(*arguments: str, folder: str = "a folder", **settings: str) -> Up:
        started.append(Up(tmp_path / folder, *arguments, **settings))
        return started[-1]

    yield make
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that runs for every test that leaves it running."""
    up = Up(tmp_path_factory.mktemp("shared") / "data", processes="2")
    yield up.wait_until_up()
    up.end()


def test_up_serves_and_stops_without_a_trace(start: StartUp) -> None:
    up = start().wait_until_up()
    assert up.get("/v1/users/me", up.log_in()).json()["email"] == "admin@example.com"
    family = up.family()
    assert set(up.pids().values()) < family
    begun = time.monotonic()
    assert up.stop() == 0
    assert time.monotonic() - begun < 15
    assert not any(map(is_running, family))
    assert not (up.folder / "run.json").exists()


def test_run_json_says_where_everything_is_and_only_to_its_owner(shared: Up) -> None:
    run = shared.run_file
    assert set(run) == {"api", "worker", "database_url", "redis_url"}
    assert run["api"]["url"] == f"http://127.0.0.1:{shared.port}"
    assert run["database_url"].startswith("postgresql://pricebook:")
    assert run["redis_url"].startswith("redis://:")
    assert len(set(run["api"]["pids"])) == 2
    assert all(is_running(pid) for part in ("api", "worker") for pid in run[part]["pids"])
    assert stat.S_IMODE((shared.folder / "run.json").stat().st_mode) == 0o600
    assert PASSWORD not in shared.text


@pytest.mark.parametrize("name", ["worker", "valkey", "postgres", "api"])
def test_a_killed_process_is_replaced(shared: Up, name: str) -> None:
    token = shared.log_in()
    killed = shared.pids()[name]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: shared.pids()[name] != killed)
    eventually(lambda: shared.get("/v1/users/me", token).status_code == httpx2.codes.OK)
    assert all(map(is_running, shared.pids().values()))


def test_a_request_waits_while_every_api_process_is_replaced(shared: Up) -> None:
    token = shared.log_in()
    for pid in shared.run_file["api"]["pids"]:
        os.kill(pid, signal.SIGKILL)
    assert shared.get("/v1/users/me", token).status_code == httpx2.codes.OK


def test_one_folder_is_for_one_up(shared: Up) -> None:
    second = Up(shared.folder, log_name="second")
    assert second.process.wait(PATIENCE_SECONDS) == 1
    assert second.text.startswith(f"pricebook: the data folder {shared.folder} is in use")
    assert len(second.text.splitlines()) == 1
    assert shared.log_in()


def test_nothing_outlives_an_up_that_is_killed_and_the_next_one_carries_on(start: StartUp) -> None:
    first = start().wait_until_up()
    family = first.family()
    first.process.kill()
    first.process.wait()
    key = (first.folder / "secret-key").read_text()
    second = start(port=str(first.port)).wait_until_up()
    # What the first one sealed, the second can open.
    assert environment_of(second.pids()["api"])["PRICEBOOK_SECRET_KEY"] == key.strip()
    assert (second.folder / "secret-key").read_text() == key
    eventually(lambda: not any(map(is_running, family)))
    assert second.log_in()


def test_two_run_at_once_in_two_folders(start: StartUp) -> None:
    ups = [start(folder="one"), start(folder="other")]
    urls = {up.wait_until_up().run_file["database_url"] for up in ups}
    assert len(urls) == 2
    assert all(up.log_in() for up in ups)


def environment_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def test_every_process_is_told_what_up_decided(shared: Up) -> None:
    run = shared.run_file
    path = shared.folder / "secret-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text().strip()
    assert len(key) >= 32
    assert key not in shared.text
    for pid in (*run["api"]["pids"], *run["worker"]["pids"]):
        told = environment_of(pid)
        assert told["PRICEBOOK_SECRET_KEY"] == key
        assert told["PRICEBOOK_PUBLIC_URL"] == f"http://127.0.0.1:{shared.port}"
        assert told["PRICEBOOK_MAIL__URL"] == (shared.folder / "mail").as_uri()
        assert "PRICEBOOK_ADMIN_PASSWORD" not in told
    assert f"written to {shared.folder / 'mail'}; set PRICEBOOK_MAIL__URL" in shared.text


def test_a_forgotten_password_comes_back_by_a_mail_in_the_folder(shared: Up) -> None:
    url = f"http://127.0.0.1:{shared.port}"
    new = {"email": "ann@example.com", "name": "Ann", "password": "four old hammers here"}
    headers = {"Authorization": f"Bearer {shared.log_in()}"}
    assert httpx2.post(f"{url}/v1/users", json=new, headers=headers).status_code == 201
    forgotten = {"email": "ann@example.com"}
    assert httpx2.post(f"{url}/v1/auth/password-reset", json=forgotten).status_code == 202

    def link() -> str | None:
        for path in (shared.folder / "mail").glob("*.eml"):
            mail = message_from_bytes(path.read_bytes(), policy=default)
            body = mail.get_body(["plain"])
            if found := body and re.search(r"http\S+/reset-password#token=\S+", body.get_content()):
                assert mail["To"] == "ann@example.com"
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                return found[0]
        return None

    page, _, token = eventually(link).partition("#token=")
    assert page == f"{url}/reset-password"
    assert httpx2.get(page).status_code == 200
    reset = {"token": token, "new_password": "a borrowed mallet"}
    reply = httpx2.post(f"{url}/v1/auth/password-reset/confirm", json=reset, timeout=30)
    assert reply.status_code == 204, reply.text
    form = {"username": "ann@example.com", "password": "a borrowed mallet"}
    assert httpx2.post(f"{url}/v1/auth/token", data=form, timeout=30).status_code == 200
    assert token not in shared.text


def test_a_port_that_is_taken_is_said_in_one_line(start: StartUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        up = start(port=str(other.getsockname()[1]))
        assert up.process.wait(PATIENCE_SECONDS) == 1
    assert "is taken by another program" in up.text
    assert "PRICEBOOK_PORT" in up.text
    assert len(up.text.splitlines()) == 1


def test_what_is_set_is_left_as_it_is(start: StartUp) -> None:
    key = "canary-of-32-letters-or-more-0123456789"
    mail = "smtp://shop:canary-password@mail.example.com"
    up = start(secret_key=key, mail__url=mail, public_url="https://prices.example.com")
    told = environment_of(up.wait_until_up().pids()["worker"])
    assert told["PRICEBOOK_SECRET_KEY"] == key
    assert told["PRICEBOOK_MAIL__URL"] == mail
    assert told["PRICEBOOK_PUBLIC_URL"] == "https://prices.example.com"
    assert not (up.folder / "secret-key").exists()
    assert "sent over mail.example.com" in up.text
    assert "canary" not in up.text


def test_a_made_up_password_is_shown_once(start: StartUp) -> None:
    first = start(admin_password="").wait_until_up()
    assert "shown only this once" in first.text
    first.stop()
    second = start(admin_password="").wait_until_up()
    assert "shown only this once" not in second.text


def test_a_password_too_weak_is_refused_in_one_line(start: StartUp) -> None:
    up = start(admin_password="secret")
    assert up.process.wait(PATIENCE_SECONDS) == 1
    assert "the admin's password will not do" in up.text


async def test_the_demo_list_is_loaded_once(start: StartUp) -> None:
    for _ in range(2):
        up = start("--demo").wait_until_up()
        connection = await asyncpg.connect(up.run_file["database_url"])
        assert await connection.fetchval("SELECT count(*) FROM items") == 3000
        assert await connection.fetchval("SELECT count(DISTINCT currency) FROM items") > 3
        await connection.close()
        up.stop()


def test_ctrl_c_during_the_start_stops_it(start: StartUp) -> None:
    up = start()
    eventually((up.folder / "postgres" / "server.log").exists)
    family = up.family()
    up.stop(signal.SIGINT)
    assert not any(map(is_running, family | up.family()))
