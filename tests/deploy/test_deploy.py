"""deploy/: Kubernetes manifests against Kubernetes' own schemas, and monitoring against the metrics that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.deploy.test_compose import COMPOSE, ROOT

KUBERNETES = "1.34"  # whatever is newer knows these kinds too

MANIFESTS = [
    (f"{path.stem}: {document['kind']} {document['metadata']['name']}", document)
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
NATIVE = [each for each in MANIFESTS if each[1]["apiVersion"] != "ray.io/v1"]
CLUSTER: dict[str, Any] = next(document for _, document in MANIFESTS if document["kind"] == "RayCluster")

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


# The part of KubeRay's RayCluster (ray.io/v1, operator 1.6) that is used here; pod templates are Kubernetes' own.
_GROUP = {"rayStartParams": _TEXTS, "template": {"type": "object"}}
RAY_CLUSTER = _closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=_closed(["name"], name={"type": "string", "maxLength": 63}, labels=_TEXTS),
    spec=_closed(
        ["headGroupSpec"],
        rayVersion={"type": "string"},
        authOptions=_closed(["mode"], mode={"enum": ["token", "disabled"]}, secretName={"type": "string"}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=_closed([], version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=_COUNT, resources={"type": "object"}),
        headGroupSpec=_closed(
            ["rayStartParams", "template"], serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, **_GROUP
        ),
        workerGroupSpecs={
            "type": "array",
            "items": _closed(
                ["groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"],
                groupName={"type": "string"},
                replicas=_COUNT,
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                **_GROUP,
            ),
        },
    ),
)


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod there is."""
    spec = CLUSTER["spec"]
    yield "ray-head", spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        yield f"ray-worker-{group['groupName']}", group["template"]
    for name, document in NATIVE:
        if document["kind"] == "Deployment":
            yield name, document["spec"]["template"]


every_pod = pytest.mark.parametrize("template", [pytest.param(template, id=name) for name, template in templates()])


@pytest.mark.parametrize("document", [pytest.param(document, id=name) for name, document in NATIVE])
def test_a_manifest_is_what_kubernetes_takes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_ray_cluster_is_what_kuberay_takes() -> None:
    Draft202012Validator(RAY_CLUSTER).validate(CLUSTER)
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@every_pod
def test_a_pod_is_what_kubernetes_takes_and_runs_as_nobody_in_particular(template: dict[str, Any]) -> None:
    labels = template["metadata"]["labels"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "any"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    kubernetes_validate.validate(deployment, KUBERNETES, strict=True)
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
        for variable in container.get("env", []):
            if re.search("TOKEN|SECRET|KEY|DATABASE", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_trials_run_on_workers_that_see_neither_database_nor_store() -> None:
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert CLUSTER["spec"]["authOptions"]["mode"] == "token"
    for name, template in templates():
        if name.startswith("ray-worker"):
            container = template["spec"]["containers"][0]
            assert not container.get("env")
            assert not container.get("envFrom")


def test_names_that_refer_to_each_other_do() -> None:
    settings = next(document for _, document in NATIVE if document["kind"] == "ConfigMap")
    assert settings["data"]["SECATEUR_RAY_ADDRESS"] == f"http://{CLUSTER['metadata']['name']}-head-svc:8265"
    service, deployment = (next(d for _, d in NATIVE if d["kind"] == kind) for kind in ("Service", "Deployment"))
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    components = {template["metadata"]["labels"]["app.kubernetes.io/component"] for _, template in templates()}
    for _, policy in NATIVE:
        if policy["kind"] == "NetworkPolicy":
            wanted = re.findall(r"'(ray-\w+)'", str(policy["spec"]["podSelector"]))
            assert wanted
            assert set(wanted) <= components


def test_the_ray_is_the_one_that_is_installed() -> None:
    assert f"ray[default,tune]=={CLUSTER['spec']['rayVersion']}" in (ROOT / "requirements.txt").read_text()


def test_prometheus_scrapes_what_the_compose_cluster_has() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())
    ours, rays = config["scrape_configs"]
    assert ours["static_configs"] == [{"targets": ["api:8000"]}]
    assert "credentials_file" in ours["authorization"]
    (lookup,) = rays["dns_sd_configs"]
    assert set(lookup["names"]) == {name for name in COMPOSE["services"] if name.startswith("ray-")}
    for name in lookup["names"]:
        assert f"--metrics-export-port={lookup['port']}" in COMPOSE["services"][name]["command"]
