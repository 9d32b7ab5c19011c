"""The manifests for Kubernetes: valid, closed, consistent, and of commands and settings we have."""

import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.conftest import ROOT
from tests.deploy.commands import connections_of, variables, verbs

from pricebook.core.settings import Settings

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST_VERSION = "1.30"
BASE, EXAMPLE = FOLDER / "base", FOLDER / "example"


def kustomization(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def resources(folder: Path) -> Iterator[dict[str, Any]]:
    """Every resource that kustomize would read from there."""
    for name in kustomization(folder)["resources"]:
        path = folder / name
        if path.is_dir():
            yield from resources(path)
        else:
            yield from yaml.safe_load_all(path.read_text())


ALL = list(resources(EXAMPLE))


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in ALL if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


WORKLOADS = [one for one in ALL if one["kind"] in {"Deployment", "Job"}]
DEPLOYMENTS = [one for one in ALL if one["kind"] == "Deployment"]
each_workload = pytest.mark.parametrize(
    "workload", WORKLOADS, ids=lambda one: one["metadata"]["name"]
)


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod_of(workload)["containers"]
    return only


def labels_of(workload: dict[str, Any]) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


def selected(selector: dict[str, str]) -> set[str]:
    """The workloads whose pods have these labels."""
    return {
        one["metadata"]["name"] for one in WORKLOADS if selector.items() <= labels_of(one).items()
    }


@pytest.mark.parametrize(
    "resource", ALL, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}"
)
def test_kubernetes_knows_every_field(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, OLDEST_VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**resource, "spce": {}}, OLDEST_VERSION, strict=True)


def test_kustomize_reads_every_file_there_is() -> None:
    for folder in (BASE, EXAMPLE):
        listed = {(folder / name).resolve() for name in kustomization(folder)["resources"]}
        present = {path.resolve() for path in folder.glob("*.yaml")}
        assert present - {folder / "kustomization.yaml"} == listed - {BASE}


@each_workload
def test_a_pod_is_closed(workload: dict[str, Any]) -> None:
    """What the pod security standard `restricted` asks for, and a root that is read-only."""
    pod, container = pod_of(workload), container_of(workload)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert pod["serviceAccountName"] == named("ServiceAccount", "pricebook")["metadata"]["name"]
    assert {"requests", "limits"} <= container["resources"].keys()


@each_workload
def test_a_pod_runs_as_the_image_and_writes_where_it_may(workload: dict[str, Any]) -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    user = pod_of(workload)["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in dockerfile
    mounted = {one["mountPath"]: one["name"] for one in container_of(workload)["volumeMounts"]}
    volumes = {one["name"]: one for one in pod_of(workload)["volumes"]}
    assert set(mounted.values()) == volumes.keys()
    assert "PRICEBOOK_DATA_DIR=/var/lib/pricebook" in dockerfile
    assert all("emptyDir" in volumes[mounted[path]] for path in ("/tmp", "/var/lib/pricebook"))


@each_workload
def test_it_starts_a_command_and_makes_settings_that_there_are(workload: dict[str, Any]) -> None:
    container = container_of(workload)
    assert set(container["args"]) <= verbs()
    made = {one["name"] for one in container.get("env", ())}
    literals = [
        literal.partition("=")[::2]
        for folder in (BASE, EXAMPLE)
        for generator in kustomization(folder)["configMapGenerator"]
        for literal in generator["literals"]
    ]
    secrets = [
        Path(file).name
        for generator in kustomization(EXAMPLE)["secretGenerator"]
        for file in generator["files"]
    ]
    assert made | {name for name, _ in literals} | set(secrets) <= variables()
    folder = dict(literals)["PRICEBOOK_SECRETS_DIR"]
    assert folder in {one["mountPath"] for one in container["volumeMounts"]}
    # What lies in the files is in no map that everyone may read.
    assert not set(secrets) & dict(literals).keys()


@each_workload
def test_its_settings_and_secrets_are_made(workload: dict[str, Any]) -> None:
    made = kustomization(BASE)["configMapGenerator"] + kustomization(EXAMPLE)["secretGenerator"]
    asked = [one["configMapRef"]["name"] for one in container_of(workload)["envFrom"]]
    asked += [one["secret"]["secretName"] for one in pod_of(workload)["volumes"] if "secret" in one]
    assert {one["name"] for one in made} == set(asked)
    images = kustomization(EXAMPLE)["images"]
    assert [one["name"] for one in images] == [container_of(workload)["image"]]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_a_process_is_asked_how_it_is_and_has_the_time_to_stop(deployment: dict[str, Any]) -> None:
    container = container_of(deployment)
    ports = {port["name"] for port in container["ports"]}
    probes = [one["httpGet"] for name, one in container.items() if name.endswith("Probe")]
    assert {probe["port"] for probe in probes} <= ports
    assert {"startupProbe", "livenessProbe"} <= container.keys()
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    if "serve" in container["args"]:
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert pod_of(deployment)["terminationGracePeriodSeconds"] > Settings().stop_seconds + 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_readiness_is_asked_often_enough_to_see_a_process_leave() -> None:
    probe = container_of(named("Deployment", "pricebook-api"))["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= Settings().drain_seconds


def test_every_selector_finds_the_pods_it_means() -> None:
    expected = {
        ("Deployment", "pricebook-api"): {"pricebook-api"},
        ("Deployment", "pricebook-worker"): {"pricebook-worker"},
        ("PodDisruptionBudget", "pricebook-api"): {"pricebook-api"},
        ("PodDisruptionBudget", "pricebook-worker"): {"pricebook-worker"},
        ("NetworkPolicy", "pricebook-api"): {"pricebook-api"},
        ("NetworkPolicy", "pricebook-worker"): {"pricebook-worker"},
        ("NetworkPolicy", "pricebook-nothing"): {one["metadata"]["name"] for one in WORKLOADS},
        ("NetworkPolicy", "pricebook-to-servers"): {one["metadata"]["name"] for one in WORKLOADS},
    }
    found = {
        (one["kind"], one["metadata"]["name"]): selected(selector["matchLabels"])
        for one in ALL
        if "matchLabels" in (selector := selector_of(one))
    }
    assert found == expected
    for deployment in DEPLOYMENTS:
        for spread in pod_of(deployment)["topologySpreadConstraints"]:
            labels = spread["labelSelector"]["matchLabels"]
            assert selected(labels) == {deployment["metadata"]["name"]}


def selector_of(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource.get("spec", {})
    return spec.get("podSelector") or spec.get("selector") or {}


def test_a_request_finds_its_way_from_the_ingress_to_a_port() -> None:
    (rule,) = named("Ingress", "pricebook")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = named("Service", path["backend"]["service"]["name"])
    (port,) = service["spec"]["ports"]
    assert path["backend"]["service"]["port"] == {"name": port["name"]}
    (target,) = selected(service["spec"]["selector"])
    (opened,) = container_of(named("Deployment", target))["ports"]
    assert (port["targetPort"], opened["containerPort"]) == (opened["name"], Settings().port)
    (allowed,) = named("NetworkPolicy", target)["spec"]["ingress"]
    assert allowed["ports"] == [{"protocol": "TCP", "port": opened["name"]}]


def test_the_worker_s_port_is_the_one_that_is_asked() -> None:
    container = container_of(named("Deployment", "pricebook-worker"))
    made = {one["name"]: one["value"] for one in container["env"]}
    (opened,) = container["ports"]
    assert made["PRICEBOOK_METRICS__WORKER_PORT"] == str(opened["containerPort"])


def test_the_autoscaler_alone_says_how_many_there_are() -> None:
    spec = named("HorizontalPodAutoscaler", "pricebook-api")["spec"]
    scaled = named(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
    assert "replicas" not in scaled["spec"]
    assert spec["minReplicas"] >= 2
    assert "cpu" in container_of(scaled)["resources"]["requests"]


def test_the_guide_counts_the_connections_that_they_may_open() -> None:
    most = named("HorizontalPodAutoscaler", "pricebook-api")["spec"]["maxReplicas"]
    workers = named("Deployment", "pricebook-worker")["spec"]["replicas"]
    # One more of each while they are replaced.
    count = connections_of(processes=most + 1, workers=workers + 1)
    assert f"{count} connections" in (ROOT / "deploy" / "README.md").read_text()


def test_secrets_cannot_be_committed() -> None:
    files = list(chain(*(one["files"] for one in kustomization(EXAMPLE)["secretGenerator"])))
    ignored = subprocess.run(
        ["git", "check-ignore", *files], cwd=EXAMPLE, capture_output=True, text=True, check=False
    )
    assert ignored.stdout.split() == files
