"""The image: it is built of what there is, runs as nobody, and holds no secret."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT
from tests.deploy.commands import variables, verbs

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
TEXT = DOCKERFILE.read_text()
FINAL = TEXT[TEXT.rindex("\nFROM ") :]


def lint(text: str) -> list[str]:
    command = [str(HADOLINT), "--format", "json", "-"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return [f"{one['line']}: {one['code']} {one['message']}" for one in json.loads(found.stdout)]


def test_a_linter_finds_nothing_in_it() -> None:
    assert lint("FROM python\nRUN cd /src && pip install uv\n")
    assert lint(TEXT) == []


def test_it_runs_as_nobody_who_has_a_number() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", FINAL, re.MULTILINE)
    assert "0" not in user


def test_it_starts_commands_that_there_are() -> None:
    assert 'ENTRYPOINT ["pricebook"]' in FINAL
    (default,) = re.findall(r"^CMD (\[.*\])$", FINAL, re.MULTILINE)
    assert set(json.loads(default)) <= verbs()
    assert set(re.findall(r"PRICEBOOK_\w+", TEXT)) <= variables()


def test_what_runs_holds_nothing_that_only_the_build_needs() -> None:
    assert "pip install" not in FINAL
    assert re.findall(r"^COPY (.*)$", FINAL, re.MULTILINE) == [
        "--from=build /opt/pricebook /opt/pricebook"
    ]


def test_it_is_built_of_files_that_are_let_in_and_of_no_others() -> None:
    build = TEXT[: TEXT.rindex("\nFROM ")]
    copied = {
        source
        for line in re.findall(r"^COPY (.*) \S+$", build, re.MULTILINE)
        for source in line.split()
    }
    first, *rest = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_it_is_built_with_the_tools_that_developers_use() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"uv==(\S+)", TEXT) == re.findall(
        r"^UV_VERSION := (\S+)", makefile, re.MULTILINE
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)-", TEXT, re.MULTILINE)
    assert project["requires-python"] == f">={version}"


def test_its_health_is_asked_without_other_programs() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", FINAL, re.MULTILINE)
    program, _, code = json.loads(check)
    assert program == "python"
    compile(code, "HEALTHCHECK", "exec")
    assert "/health/live" in code
