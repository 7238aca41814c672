"""What `lte up` runs with: the settings of the daemon, and what they leave for `lte up` to choose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Loaded, environment_name, load
from daemon.kafka.topics import TopicPlan
from daemon.parts.topics import plans
from daemon.settings import OFF, PREFIX, Settings
from lte_runtime import redact
from lte_runtime.errors import BadRequest
from ops.stack import RunningKafka

# Addresses that `lte up` chooses where nobody sets them, and prints.
_LISTENERS = ("rpc.listen", "metrics.listen", "gateway.listen", "gateway.metrics_listen")


@dataclass(frozen=True)
class UpSettings:
    """`kafka` is None where a development broker is started; `environment` is what the daemon gets beside
    the addresses that the stack chooses."""

    settings: Settings
    kafka: RunningKafka | None
    environment: Mapping[str, str]
    file: Path | None
    warnings: tuple[str, ...]

    @property
    def topics(self) -> tuple[TopicPlan, ...]:
        return plans(self.settings)

    def state_dir(self, directory: Path) -> Path:
        """The daemon's state: `directory`/state unless the settings name another place."""
        return Path(self.environment.get("LTE_STATE_DIR", directory / "state"))


def choose(
    config: Path | None = None,
    *,
    model: str | None = None,
    kafka: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> UpSettings:
    """Settings from file, environment and the two flags. Raises `BadRequest` where they contradict each other
    or what `lte up` does."""
    environment = os.environ if environ is None else environ
    if model is not None and not model.strip():
        raise BadRequest("--model is empty: name a model, for example --model smollm2")
    configured = load(config, {} if model is None else {"model.path": model}, environment)
    loaded = configured if kafka is None else _with_kafka(configured, kafka, environment)
    for name in _LISTENERS:
        _check_listener(loaded, name)
    chosen = loaded.settings.kafka
    brokers = RunningKafka(chosen.bootstrap, chosen.security) if "kafka.bootstrap" in loaded.origins else None
    if brokers is None and chosen.security:
        raise BadRequest(
            f"kafka.security is set ({_origin(loaded, 'kafka.security')}), but the broker that `lte up` "
            "starts has neither TLS nor SASL: name yours with --kafka HOST:PORT, or take kafka.security out"
        )
    daemon_environment = _inherited(environment) | _own(loaded) | _file(loaded)
    return UpSettings(loaded.settings, brokers, daemon_environment, loaded.file, loaded.warnings)


def _with_kafka(configured: Loaded, kafka: str, environ: Mapping[str, str]) -> Loaded:
    """With two brokers `lte publish` would write to the configured one, and the daemon read the other."""
    set_to = configured.settings.kafka.bootstrap
    if "kafka.bootstrap" in configured.origins and set_to != kafka:
        raise BadRequest(
            f"--kafka {redact.url(kafka)} contradicts kafka.bootstrap = {redact.url(set_to)} "
            f"({_origin(configured, 'kafka.bootstrap')}), which `lte publish` writes to: change or remove one"
        )
    for server in kafka.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 1 << 16):
            raise BadRequest(f"--kafka {redact.url(kafka)}: write HOST:PORT, several separated by commas")
    flags = {"kafka.bootstrap": kafka, "model.path": configured.settings.model.path}
    return load(configured.file, flags, environ)


def _check_listener(loaded: Loaded, name: str) -> None:
    """The addresses are printed and written down before the daemon listens."""
    listen = _value(loaded.settings, name)
    if listen != OFF and listen.endswith(":0"):
        raise BadRequest(
            f"{name} = {listen} ({_origin(loaded, name)}) has no port that `lte up` could print: name one, "
            "or leave the setting out, then `lte up` chooses a port and keeps it"
        )


def _value(settings: Settings, name: str) -> Any:
    section, field = name.split(".")
    return getattr(getattr(settings, section), field)


def _origin(loaded: Loaded, name: str) -> str:
    return next(place for key, place in loaded.origins.items() if key == name or key.startswith(f"{name}."))


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """An empty value sets nothing: it must not hide an address of the stack either."""
    return {
        name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX) and value
    }


def _own(loaded: Loaded) -> dict[str, str]:
    """Values of the names that the stack would choose by itself, where the settings have them."""
    settings, kafka = loaded.settings, loaded.settings.kafka
    values = {
        "kafka.topic": kafka.topic,
        "kafka.dlq_topic": kafka.dlq_topic,
        "model.path": settings.model.path,
    }
    set_by_user = {name: str(_value(settings, name)) for name in (*_LISTENERS, "gateway.tls_cert")}
    set_by_user |= {"kafka.bootstrap": kafka.bootstrap, "state_dir": str(settings.state_dir)}
    values |= {name: value for name, value in set_by_user.items() if name in loaded.origins}
    # Clients that read the same settings look for the sockets in the state directory that these name.
    for name, path in (("rpc.socket", settings.socket), ("rpc.admin_socket", settings.admin_socket)):
        if name in loaded.origins or "state_dir" in loaded.origins:
            values[name] = str(path)
    return {environment_name(name): value for name, value in values.items()}


def _file(loaded: Loaded) -> dict[str, str]:
    return {"LTE_CONFIG": str(loaded.file.absolute())} if loaded.file else {}
