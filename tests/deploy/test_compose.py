"""compose.yaml: valid, closed but for nginx, in order, and with room for all connections."""

import re
import subprocess
from ipaddress import ip_address, ip_network
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from tests.conftest import ROOT
from tests.deploy.commands import connections_of, variables, verbs

from pricebook.core.settings import Settings

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "pricebook" in one["image"]}
APIS = [name for name, one in OURS.items() if one["command"] == ["serve"]]
WORKERS = [name for name, one in OURS.items() if one["command"] == ["worker"]]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_of_ours = pytest.mark.parametrize("service", OURS.values(), ids=OURS)


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def test_it_is_what_compose_understands() -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"api": {"read_onyl": True}}}, schema)
    jsonschema.validate(COMPOSE, schema)


def test_it_has_two_api_processes_and_a_worker() -> None:
    assert (len(APIS), len(WORKERS)) == (2, 1)


@each_service
def test_a_service_is_closed_and_bounded(service: dict[str, Any]) -> None:
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    is_root = "user" not in service
    assert is_root == bool(service.get("cap_add"))
    assert not is_root or service["image"].startswith("postgres:")


@each_service
def test_a_service_that_stays_says_how_it_is_and_comes_back(service: dict[str, Any]) -> None:
    if service["restart"] == "no":
        assert service["command"] == ["migrate"]
    else:
        assert service["restart"] == "unless-stopped"
        # The image knows how to ask an API process.
        assert "healthcheck" in service or service["command"] == ["serve"]


def test_only_nginx_is_reached_from_outside() -> None:
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["nginx"]
    assert SERVICES["nginx"]["networks"] == ["edge"]
    assert COMPOSE["networks"]["data"]["internal"]
    for name in ("postgres", "valkey"):
        assert SERVICES[name]["networks"] == ["data"]


def test_who_is_believed_about_clients_is_nginx_alone() -> None:
    inside = {name for name, one in SERVICES.items() if "edge" in one["networks"]}
    assert inside == {"nginx", *APIS}
    (network,) = COMPOSE["networks"]["edge"]["ipam"]["config"]
    for name in APIS:
        trusted = yaml.safe_load(SERVICES[name]["environment"]["PRICEBOOK_HTTP__TRUSTED_PROXIES"])
        assert trusted == [network["subnet"]]


def test_an_api_process_keeps_its_address_and_nobody_else_is_given_it() -> None:
    (network,) = COMPOSE["networks"]["edge"]["ipam"]["config"]
    addresses = {ip_address(SERVICES[name]["networks"]["edge"]["ipv4_address"]) for name in APIS}
    assert len(addresses) == len(APIS)
    for address in addresses:
        assert address in ip_network(network["subnet"])
        assert address not in ip_network(network["ip_range"])


@each_of_ours
def test_it_starts_commands_and_makes_settings_that_there_are(service: dict[str, Any]) -> None:
    assert set(service["command"]) <= verbs()
    assert service["environment"].keys() <= variables()
    assert {name.upper() for name in service["secrets"]} <= variables()


@each_of_ours
def test_nothing_of_ours_begins_before_the_schema_is_there(service: dict[str, Any]) -> None:
    assert service["depends_on"]["postgres"] == {"condition": "service_healthy"}
    if service["command"] != ["migrate"]:
        done = {"condition": "service_completed_successfully"}
        assert service["depends_on"]["migrate"] == done


@each_of_ours
def test_a_process_has_the_time_to_stop(service: dict[str, Any]) -> None:
    assert seconds(service["stop_grace_period"]) > Settings().stop_seconds + 2


def test_postgresql_takes_all_connections_that_the_pools_may_open() -> None:
    (most,) = (
        int(word.removeprefix("max_connections="))
        for word in SERVICES["postgres"]["command"]
        if word.startswith("max_connections=")
    )
    # The two API processes of a release may run beside those that they replace; three are kept for
    # superusers, and some for people and migrations.
    assert connections_of(processes=2 * len(APIS), workers=len(WORKERS)) + 3 + 10 <= most


def test_no_secret_stands_in_it_and_none_can_be_committed() -> None:
    secret = re.compile(r"password|secret_key|token", re.IGNORECASE)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not secret.search(name) or str(value).startswith("/run/secrets/"), name
    files = [one["file"] for one in COMPOSE["secrets"].values()]
    ignored = subprocess.run(
        ["git", "check-ignore", *files, "local/nginx.conf", "local/tls/key.pem", ".env"],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(ignored.stdout.splitlines()) == len(files) + 3
    assert COMPOSE["secrets"].keys() == {
        name for one in SERVICES.values() for name in one.get("secrets", ())
    }
