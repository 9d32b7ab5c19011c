"""The units for systemd: they are valid, closed, and start commands that there are."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.deploy.commands import verbs
from tests.tools import needed

from pricebook.core.settings import Settings

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
# systemd's own measure, from 0 (closed) to 10; in tenths.
MOST_EXPOSED = 20


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [needed("systemd-analyze", "systemd"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command_of(unit: Path) -> list[str]:
    found = re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert found
    return found[1].split()


def test_there_is_one_for_each_process() -> None:
    assert [unit.name for unit in UNITS] == [
        f"pricebook-{name}.service" for name in ("api", "backup", "migrate", "worker")
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_reads_it(unit: Path, tmp_path: Path) -> None:
    # It is to name a program that is there, and pages that can be read.
    program = command_of(unit)[0]
    adapted = tmp_path / unit.name
    adapted.write_text(unit.read_text().replace(program, "/bin/true"))
    checked = analyze("verify", "--man=no", str(adapted))
    ours = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert (checked.returncode, ours) == (0, []), checked.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_is_closed(unit: Path) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit))
    assert judged.returncode == 0, judged.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_starts_a_command_that_there_is(unit: Path) -> None:
    program, verb = command_of(unit)
    assert program.endswith("/.venv/bin/pricebook")
    assert verb in verbs()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_gives_a_process_the_time_to_stop(unit: Path) -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
    assert found is None if "migrate" in unit.name else found
    assert found is None or int(found[1]) > Settings(database_url=None).stop_seconds + 2


def test_a_timer_starts_the_backup(tmp_path: Path) -> None:
    timer = ROOT / "deploy" / "systemd" / "pricebook-backup.timer"
    for unit in (timer, timer.with_suffix(".service")):
        text = unit.read_text()
        program = "/opt/pricebook/.venv/bin/pricebook"
        (tmp_path / unit.name).write_text(text.replace(program, "/bin/true"))
    checked = analyze("verify", "--man=no", str(tmp_path / timer.name))
    ours = [line for line in checked.stderr.splitlines() if "pricebook" in line]
    assert (checked.returncode, ours) == (0, []), checked.stderr
