"""ops/k8s/gateway: valid objects, ports, files and probes that are those of the settings."""

from __future__ import annotations

import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from deployment import IMAGE, OPS, Object, load_yaml, port_of, refusal, settings_of

FOLDER = OPS / "k8s/gateway"
OBJECTS = {item["kind"]: item for item in load_yaml(OPS / "k8s/rendered/gateway.yaml")}
POD: Object = OBJECTS["Deployment"]["spec"]["template"]["spec"]
CONTAINER: Object = POD["containers"][0]
SETTINGS = settings_of(OBJECTS["ConfigMap"]["data"])


def test_the_rendered_file_is_what_kustomize_gives() -> None:
    tools = (["kubectl", "kustomize"], ["kustomize", "build"])
    tool = next((words for words in tools if shutil.which(words[0])), None)
    if tool is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*tool, str(FOLDER)], capture_output=True, text=True, timeout=120, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    assert rendered == load_yaml(OPS / "k8s/rendered/gateway.yaml"), "`make manifests`"


def test_the_rendered_file_has_what_the_sources_say() -> None:
    """Where kustomize is not installed: names and settings, which it only adds labels and hashes to."""
    generator = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))["configMapGenerator"][0]
    assert dict(text.split("=", 1) for text in generator["literals"]) == OBJECTS["ConfigMap"]["data"]
    assert CONTAINER["envFrom"] == [{"configMapRef": {"name": OBJECTS["ConfigMap"]["metadata"]["name"]}}]
    (source,) = load_yaml(FOLDER / "deployment.yaml")
    container = source["spec"]["template"]["spec"]["containers"][0]
    for name in ("args", "ports", "startupProbe", "livenessProbe", "readinessProbe", "volumeMounts"):
        assert container[name] == CONTAINER[name]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_objects_are_valid(version: str) -> None:
    for item in OBJECTS.values():
        kubernetes_validate.validate(item, version, strict=True)


def test_it_is_public_with_tls_and_the_daemon_is_reached_by_its_service() -> None:
    gateway = SETTINGS.gateway
    assert gateway.is_public
    assert gateway.tls_cert
    assert SETTINGS.metrics.public
    daemon = {item["kind"]: item for item in load_yaml(OPS / "k8s/base/service.yaml")[:1]}["Service"]
    port = daemon["spec"]["ports"][0]["port"]
    assert SETTINGS.client.address == f"{daemon['metadata']['name']}:{port}"


def test_ports_probes_and_files_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = SETTINGS.gateway
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"https": port_of(gateway.listen), "metrics": port_of(gateway.metrics_listen)}
    (service_port,) = OBJECTS["Service"]["spec"]["ports"]
    assert service_port["port"] == ports["https"]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        request = CONTAINER[probe]["httpGet"]
        assert (request["path"], request["port"], request["scheme"]) == (path, "https", "HTTPS")
        assert request["httpHeaders"][0]["value"] in gateway.hosts
    mounted = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert {str(path.parent) for path in (gateway.tls_cert, gateway.tls_key) if path} <= mounted
    assert refusal(monkeypatch, CONTAINER["args"]) == ""
    assert CONTAINER["image"] == f"{IMAGE}:latest"
    # The labels of the daemon's pods are others: its service must not send calls here.
    assert OBJECTS["Service"]["spec"]["selector"] == {"app.kubernetes.io/name": "lte-gateway"}
    assert POD["terminationGracePeriodSeconds"] > 2 * SETTINGS.rpc.drain_s
    assert POD["enableServiceLinks"] is False
