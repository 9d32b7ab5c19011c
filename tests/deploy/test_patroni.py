"""The samples for Patroni, its HAProxy and PgBouncer: read by the programs themselves."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests import patroni
from tests.tools import needed

from pricebook.core.settings import Settings

HOSTS = ("db-1", "db-2", "db-3")


@pytest.fixture
def etcd() -> Iterator[str]:
    """Something that listens where etcd would."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_patroni_takes_its_sample(etcd: str, tmp_path: Path) -> None:
    ours = patroni.shipped()
    ours["etcd3"]["hosts"] = [etcd]
    ours["postgresql"] |= {"bin_dir": str(patroni.PROGRAMS), "data_dir": str(tmp_path / "data")}
    adapted = tmp_path / "patroni.yml"
    adapted.write_text(yaml.safe_dump(ours))
    checked = subprocess.run(
        [patroni.patroni(), "--validate-config", "--ignore-listen-port", adapted],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr


def test_what_was_acknowledged_is_with_the_standby() -> None:
    cluster = patroni.shipped()["bootstrap"]["dcs"]
    assert cluster["synchronous_mode"] is True
    assert "synchronous_commit" not in cluster["postgresql"]["parameters"]


def test_a_leader_steps_down_before_another_may_lead() -> None:
    cluster = patroni.shipped()["bootstrap"]["dcs"]
    assert cluster["loop_wait"] + 2 * cluster["retry_timeout"] <= cluster["ttl"]


def test_no_request_gives_up_the_wait_for_a_commit_before_the_standby_is_replaced() -> None:
    cluster = patroni.shipped()["bootstrap"]["dcs"]
    seconds = int(cluster["postgresql"]["parameters"]["wal_sender_timeout"].removesuffix("s"))
    waits = Settings(database_url=None).database.statement_timeout_seconds + 1
    assert seconds + cluster["loop_wait"] < waits
    assert cluster["retry_timeout"] < waits


def test_every_password_is_to_be_set() -> None:
    text = (patroni.SHIPPED / "patroni.yml").read_text()
    passwords = re.findall(r"password: (\S+)", text)
    assert len(passwords) == len(set(passwords)) == 4
    assert all(password.startswith("change-me-") for password in passwords)


def test_nobody_is_let_in_without_one_but_the_administrator_of_the_host() -> None:
    lines = patroni.shipped()["bootstrap"]["dcs"]["postgresql"]["pg_hba"]
    methods = {line.split()[-1] for line in lines}
    assert methods == {"peer", "scram-sha-256"}
    assert [line for line in lines if line.endswith("peer")] == ["local all postgres peer"]


def test_haproxy_takes_its_sample_and_asks_each_host() -> None:
    sample = patroni.SHIPPED / "haproxy.cfg"
    command = [needed("haproxy"), "-c", "-f", str(sample)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    assert "WARNING" not in said, said
    assert "OPTIONS /primary" in sample.read_text()
    assert re.findall(r"server (\S+) 10", sample.read_text()) == [*HOSTS, *HOSTS]


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    sample = (patroni.SHIPPED / "patroni.service").read_text()
    adapted = tmp_path / "patroni.service"
    # It is to name a program that is there.
    program = "/opt/patroni/bin/patroni"
    assert f"ExecStart={program} " in sample
    adapted.write_text(sample.replace(program, "/bin/true"))
    command = [needed("systemd-analyze", "systemd"), "verify", "--man=no", str(adapted)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in checked.stderr.splitlines() if adapted.name in line]
    assert (checked.returncode, ours) == (0, []), checked.stderr
