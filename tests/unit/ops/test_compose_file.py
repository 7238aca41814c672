"""ops/compose.yaml: every image, port, path and setting is the product's, or is pinned."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from string import Template
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
import yaml
from deployment import (
    IMAGE,
    OPS,
    ROOT,
    Object,
    image_volume,
    load_yaml,
    port_of,
    refusal,
    seconds,
    settings_of,
    walk,
)
from real_parts import missing_part

FILE = OPS / "compose.yaml"
PROJECT = load_yaml(FILE)[0]
SERVICES: dict[str, Object] = PROJECT["services"]
DAEMON = SERVICES["daemon"]


def tag_of(service: str) -> str:
    return str(SERVICES[service]["image"].partition(":")[2])


def test_images_are_built_here_or_pinned() -> None:
    own = {name for name, service in SERVICES.items() if service["image"] == IMAGE}
    assert own == {"daemon", "topics", "gateway"}
    # Compose builds the image of a service that another one builds before it looks for it elsewhere.
    assert (FILE.parent / DAEMON["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    for name in SERVICES.keys() - own:
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag_of(name)), name


def test_the_broker_is_the_one_of_the_tests() -> None:
    pom = ElementTree.parse(OPS / "kafka/pom.xml")
    kafka = {
        item.findtext("{*}version")
        for item in pom.iter("{http://maven.apache.org/POM/4.0.0}dependency")
        if (item.findtext("{*}groupId") or "") == "org.apache.kafka"
    }
    assert kafka == {tag_of("kafka")}


def test_settings_exist_and_name_the_broker() -> None:
    settings = settings_of(DAEMON["environment"])
    assert SERVICES["topics"]["environment"] == DAEMON["environment"]
    host, _, port = settings.kafka.bootstrap.rpartition(":")
    assert host in SERVICES
    advertised = SERVICES[host]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"PLAINTEXT://{host}:{port}" in advertised


def test_a_producer_on_the_machine_reaches_the_broker() -> None:
    kafka = SERVICES["kafka"]
    (published,) = kafka["ports"]
    address, _, inner = published.rpartition(":")
    assert f"HOST://{address}" in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"HOST://:{inner}" in kafka["environment"]["KAFKA_LISTENERS"].split(",")


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("topics", "daemon", "gateway")
    assert [refusal(monkeypatch, SERVICES[name]["command"]) for name in own] == [""] * 3


def test_the_gateway_is_on_loopback_and_finds_the_socket_of_the_daemon() -> None:
    gateway = SERVICES["gateway"]
    settings = settings_of(gateway["environment"])
    assert gateway["network_mode"] == "host"
    assert not settings.gateway.is_public
    assert settings.client.address is None
    assert settings.socket == settings_of(DAEMON["environment"]).socket
    assert gateway["volumes"] == [f"{DAEMON['volumes'][0]}:ro"]
    assert seconds(gateway["stop_grace_period"]) > 2 * settings.rpc.drain_s


def test_the_state_is_on_a_volume() -> None:
    volumes = dict(volume.split(":")[:2][::-1] for volume in DAEMON["volumes"])
    assert volumes[image_volume()] in PROJECT["volumes"]
    assert settings_of(DAEMON["environment"]).state_dir.parent == Path(image_volume())
    # The root file system is read-only: what else is written goes to memory.
    assert (DAEMON["read_only"], DAEMON["tmpfs"]) == (True, ["/tmp"])


def test_a_stop_has_its_time() -> None:
    assert seconds(DAEMON["stop_grace_period"]) > 2 * settings_of(DAEMON["environment"]).rpc.drain_s


def test_volumes_and_files_exist() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FILE.parent / source).exists(), f"{name}: {source}"
            else:
                assert source in PROJECT["volumes"], f"{name}: {source}"
        for entry in service.get("configs", ()):
            assert entry["source"] in PROJECT["configs"]
        assert set(service.get("depends_on", ())) <= SERVICES.keys()


def prometheus_configuration() -> Object:
    content: Object = yaml.safe_load(PROJECT["configs"]["prometheus"]["content"])
    return content


def test_prometheus_scrapes_the_daemon_and_has_its_rules() -> None:
    configuration = prometheus_configuration()
    (job,) = configuration["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    listen = settings_of(DAEMON["environment"]).metrics.listen
    assert target == f"daemon:{port_of(listen)}"
    assert listen.startswith("0.0.0.0:")
    mounted = [volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]]
    target_file = Path(SERVICES["prometheus"]["configs"][0]["target"])
    assert f"--config.file={target_file}" in SERVICES["prometheus"]["command"]
    for file in configuration["rule_files"]:
        assert str(target_file.parent / file) in mounted


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        missing_part("missing: promtool (apt install prometheus)")
    file = tmp_path / "prometheus.yaml"
    file.write_text(PROJECT["configs"]["prometheus"]["content"], "utf-8")
    (tmp_path / "lte.rules.yaml").write_bytes((OPS / "prometheus/lte.rules.yaml").read_bytes())
    subprocess.run(["promtool", "check", "config", str(file)], check=True, timeout=60)


def test_grafana_has_what_its_provisioning_names() -> None:
    grafana = SERVICES["grafana"]
    mounted = {volume.split(":")[1] for volume in grafana["volumes"]}
    assert "/etc/grafana/provisioning" in mounted
    files = sorted((OPS / "grafana/provisioning").rglob("*.yaml"))
    # An unset variable raises KeyError.
    documents = [
        yaml.safe_load(Template(path.read_text("utf-8")).substitute(grafana["environment"])) for path in files
    ]
    paths = {item["path"] for item in walk(documents) if "path" in item}
    assert paths <= mounted
    hosts = {urlsplit(item["url"]).hostname for item in walk(documents) if "url" in item}
    assert hosts == {"prometheus"} <= SERVICES.keys()


def test_compose_takes_the_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    known = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False)
    if known.returncode:
        pytest.skip("docker has no compose plugin here")
    done = subprocess.run(
        ["docker", "compose", "-f", str(FILE), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
