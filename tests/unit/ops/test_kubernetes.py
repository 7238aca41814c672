"""ops/k8s: valid by the schemas of Kubernetes, and every image, port, path and setting is the product's."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployment import (
    DOCKERFILE,
    IMAGE,
    OPS,
    Object,
    below,
    image_user,
    image_variables,
    image_volume,
    load_yaml,
    port_of,
    refusal,
    settings_of,
    walk,
)

K8S = OPS / "k8s"
PROGRAM = K8S / "realign/realign_job.py"
NAMES = ("base", "cpu", "gpu")
# The oldest one that is still maintained somewhere, and the newest with schemas.
VERSIONS = ("1.29", "1.37")


class Output:
    """The objects that kustomize makes of one folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects = load_yaml(K8S / "rendered" / f"{name}.yaml")

    def all(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def only(self, kind: str) -> Object:
        (item,) = self.all(kind)
        return item

    def names(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.all(kind)}

    @property
    def pod(self) -> Object:
        """The daemon's pod."""
        spec: Object = self.only("StatefulSet")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def job(self) -> Object:
        spec: Object = self.only("CronJob")["spec"]["jobTemplate"]["spec"]
        return spec

    @property
    def pods(self) -> list[Object]:
        return [
            self.pod,
            *(item["spec"]["jobTemplate"]["spec"]["template"]["spec"] for item in self.all("CronJob")),
        ]

    @property
    def variables(self) -> dict[str, str]:
        """What the daemon's container gets from the config maps that it names."""
        sources = [
            entry["configMapRef"]["name"] for entry in self.container["envFrom"] if "configMapRef" in entry
        ]
        maps = {item["metadata"]["name"]: item["data"] for item in self.all("ConfigMap")}
        return {name: value for source in sources for name, value in maps[source].items()}


@pytest.fixture(params=NAMES)
def output(request: pytest.FixtureRequest) -> Output:
    return Output(request.param)


@pytest.fixture(params=NAMES[1:])
def overlay(request: pytest.FixtureRequest) -> Output:
    return Output(request.param)


def mounts(container: Object) -> dict[str, str]:
    """Path -> volume."""
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", ())}


def test_the_rendered_files_are_what_kustomize_gives() -> None:
    tool = next(
        (words for words in (["kubectl", "kustomize"], ["kustomize", "build"]) if shutil.which(words[0])),
        None,
    )
    if tool is None:
        pytest.skip(
            "neither kubectl nor kustomize is installed, and Debian packages none that reads components"
        )
    for folder in ("base", "overlays/cpu", "overlays/gpu"):
        done = subprocess.run(
            [*tool, str(K8S / folder)], capture_output=True, text=True, timeout=120, check=True
        )
        rendered = load_yaml(K8S / "rendered" / f"{Path(folder).name}.yaml")
        assert list(yaml.safe_load_all(done.stdout)) == rendered, (
            f"ops/k8s/{folder} has changed: `make manifests`"
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid(output: Output, version: str) -> None:
    for item in output.objects:
        kubernetes_validate.validate(item, version, strict=True)


def test_a_wrong_object_is_noticed() -> None:
    budget = Output("base").only("PodDisruptionBudget")
    budget["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(budget, VERSIONS[1], strict=True)


def test_settings_exist_and_are_valid(output: Output) -> None:
    settings = settings_of(output.variables)
    assert settings.metrics.public
    assert port_of(settings.rpc.listen) != port_of(settings.metrics.listen)


def test_no_variable_is_set_beside_the_settings(output: Output) -> None:
    """The daemon refuses unknown LTE_ names, and Kubernetes makes some for services named lte-..."""
    assert all(pod["enableServiceLinks"] is False for pod in output.pods)
    for mapping in walk(output.objects):
        named = {entry["name"] for entry in mapping.get("env", ()) if isinstance(entry, dict)}
        assert not any(name.startswith("LTE_") for name in named)


def test_images_are_built_by_the_dockerfile(output: Output) -> None:
    images = {mapping["image"] for mapping in walk(output.objects) if isinstance(mapping.get("image"), str)}
    built = {
        tag if ":" in tag else f"{tag}:latest" for tag in re.findall(r"docker build -t (\S+)", DOCKERFILE)
    }
    assert images
    assert images <= built
    assert (images == {f"{IMAGE}:cuda"}) == (output.name == "gpu")


def test_ports_are_those_of_the_settings(output: Output) -> None:
    settings = settings_of(output.variables)
    ports = {port["name"]: port["containerPort"] for port in output.container["ports"]}
    assert ports == {"grpc": port_of(settings.rpc.listen), "metrics": port_of(settings.metrics.listen)}
    for service in output.all("Service"):
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
    notes = output.only("StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == ports["metrics"]
    for probe in ("startupProbe", "livenessProbe"):
        assert output.container[probe]["httpGet"] == {"path": "/metrics", "port": "metrics"}


def test_commands_are_understood(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    (topics,) = output.pod["initContainers"]
    probe = output.container["readinessProbe"]["exec"]["command"]
    assert probe[0] == "lte"
    commands = (topics["args"], output.container["args"], probe[1:])
    assert [said for arguments in commands if (said := refusal(monkeypatch, arguments))] == []


def test_files_of_the_settings_are_on_mounted_volumes(output: Output) -> None:
    settings, places = settings_of(output.variables), mounts(output.container)
    rpc = settings.rpc
    assert rpc.tls_cert
    assert rpc.tls_key
    assert rpc.token_file
    assert {places[below(path, places)] for path in (rpc.tls_cert, rpc.tls_key)} == {"tls"}
    assert places[below(rpc.token_file, places)] == "tokens"
    # The daemon makes the state directory itself, on the volume of the image.
    state = image_variables()["LTE_STATE_DIR"]
    assert settings.state_dir == Path(state)
    assert places[image_volume()] == "data"
    assert Path(state).parent == Path(image_volume())
    assert "/tmp" in places


def test_what_is_named_exists(output: Output) -> None:
    for pod in output.pods:
        claims = {
            claim["metadata"]["name"] for claim in output.only("StatefulSet")["spec"]["volumeClaimTemplates"]
        }
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert set(mounts(container).values()) <= volumes.keys() | claims
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in output.names("ConfigMap")
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in output.names("PersistentVolumeClaim")
        account = pod.get("serviceAccountName")
        assert account is None or account in output.names("ServiceAccount")
    assert output.only("StatefulSet")["spec"]["serviceName"] in output.names("Service")


def test_selectors_select_the_daemons_alone(output: Output) -> None:
    labels = output.only("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in output.all("Service")]
    selectors += [
        item["spec"]["selector"]["matchLabels"]
        for item in (output.only("StatefulSet"), output.only("PodDisruptionBudget"))
    ]
    job_labels = [
        item["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        for item in output.all("CronJob")
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in job_labels)


def test_pods_run_as_the_images_user_without_rights(output: Output) -> None:
    for pod in output.pods:
        context = pod["securityContext"]
        assert (context["runAsUser"], context["fsGroup"]) == (image_user(), image_user())
        # Kubernetes would open the state's files to the group at each start.
        assert context["fsGroupChangePolicy"] == "OnRootMismatch"
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_a_stop_has_its_time(output: Output) -> None:
    settings = settings_of(output.variables)
    assert output.pod["terminationGracePeriodSeconds"] > 2 * settings.rpc.drain_s


def test_a_training_fits_the_memory(output: Output) -> None:
    container = output.job["template"]["spec"]["containers"][0] if output.all("CronJob") else output.container
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    most = settings_of(output.variables).realign.max_memory_bytes
    assert most
    assert most < limit


def test_the_command_is_the_program_on_the_shared_volume(overlay: Output) -> None:
    settings, places = settings_of(overlay.variables), mounts(overlay.container)
    python, program, job_dir, *options = shlex.split(settings.realign.command or "")
    assert (python, job_dir, options[0]) == ("python", "{jobdir}", "--shared")
    volume = next(v for v in overlay.pod["volumes"] if v["name"] == places[below(program, places)])
    data = next(
        m["data"] for m in overlay.all("ConfigMap") if m["metadata"]["name"] == volume["configMap"]["name"]
    )
    assert data[Path(program).name] == PROGRAM.read_text("utf-8")
    shared = options[1]
    assert places[shared] == "shared"
    job_pod: Any = overlay.job["template"]["spec"]
    assert mounts(job_pod["containers"][0])[shared] == "shared"
    # A Job reads the model where the daemon converted it, or where it was put.
    assert below(settings.model.cache or "", places) == shared
    assert (settings.registry.url or "").removeprefix("file://").startswith(shared)


def test_the_job_is_a_template_that_the_program_may_use(overlay: Output) -> None:
    template = overlay.only("CronJob")
    assert template["spec"]["suspend"] is True
    role = overlay.only("Role")["rules"]
    assert role[0]["resourceNames"] == [template["metadata"]["name"]]
    assert f'default="{template["metadata"]["name"]}"' in PROGRAM.read_text("utf-8")
    allowed = {(resource, verb) for rule in role for resource in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {("cronjobs", "get"), ("jobs", "create"), ("jobs", "get"), ("jobs", "delete")}
    python, option, module = overlay.job["template"]["spec"]["containers"][0]["command"]
    assert (python, option) == ("python", "-m")
    assert importlib.util.find_spec(module)
    assert overlay.job["activeDeadlineSeconds"] > settings_of(overlay.variables).realign.deadline_s


def test_the_program_needs_python_alone() -> None:
    """It is started by the image's Python, with no package of ours in sight."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--shared" in done.stdout
