"""`lte doctor`: is this machine, and this configuration, fit to run the daemon? Each fault with its cure."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from daemon.cli import output
from daemon.cli.exits import FAILED
from daemon.cli.options import ConfigFile, Json
from daemon.rpc import token_file
from lte_runtime import redact
from lte_runtime.errors import BadRequest, LteError, NotFound, Refused
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.resolve import check_name, gguf, is_gguf, source

if TYPE_CHECKING:
    from daemon.settings import Settings

app = typer.Typer(add_completion=False)

_FREE_BYTES = 1 << 30
_CONNECT_S = 3.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is fit, what was seen, and what to do when it is not."""

    check: str
    ok: bool
    seen: str
    cure: str = ""


@app.command()
def doctor(config: ConfigFile = None, json_: Json = False) -> None:
    """Check this machine and the configuration; exit 1 when something must be done first.

    Example: lte doctor -c /etc/lte/lte.toml
    """
    findings = list(examine(config))
    if json_:
        output.as_json([asdict(finding) for finding in findings])
    else:
        rows = ((f.check, "ok" if f.ok else "FAIL", f.seen, "" if f.ok else f.cure) for f in findings)
        output.table(("check", "result", "seen", "what to do"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILED)


def examine(config: Path | None) -> Iterator[Finding]:
    """All findings, the configuration's first: without it the others have nothing to look at."""
    from daemon.config import load

    yield _python()
    try:
        settings = load(config).settings
    except BadRequest as error:
        yield Finding("configuration", False, str(error), "lte config show lists the settings")
        return
    yield Finding("configuration", True, "valid")
    checks: tuple[Callable[[Settings], Finding], ...] = (_libraries, _state, _space, _model, _device)
    for check in checks:
        yield check(settings)
    if settings.rpc.token_file is not None:
        yield _tokens(settings.rpc.token_file)
    broker = _kafka(settings)
    yield broker
    if broker.ok:
        yield _topic(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _libraries(_settings: Settings) -> Finding:
    """Versions from the metadata: importing them would take ten seconds."""
    required = ("torch", "transformers", "peft", "openvino", "hnswlib", "apsw", "kafka-python", "grpcio")
    seen, absent = [], []
    for name in required:
        try:
            seen.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(name)
    cure = f"install lte-daemon again: {', '.join(absent)} missing"
    return Finding("libraries", not absent, ", ".join(seen), cure)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _state(settings: Settings) -> Finding:
    place = _existing(settings.state_dir)
    writable = place.is_dir() and os.access(place, os.W_OK)
    cure = f"make {place} writable for this user, or set state_dir"
    return Finding("state directory", writable, str(settings.state_dir), cure)


def _tokens(path: Path) -> Finding:
    """Expired entries, and a file of version 0.1, are worth a look but no fault."""
    try:
        principals = token_file.read(path)
    except Refused as error:
        return Finding("token file", False, str(error), "mend it: `lte token new` prints lines for it")
    expired = sum(who.expires_s is not None and who.expires_s <= time.time() for who in principals.all)
    seen = f"{path}: {len(principals.all)} principals, {expired} expired"
    return Finding("token file", True, "; ".join((seen, *principals.warnings)))


def _space(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.state_dir)).free
    cure = "free at least 1 GiB: a full disk stops ingest"
    return Finding("disk", free >= _FREE_BYTES, f"{free / (1 << 30):.1f} GiB free", cure)


def _model(settings: Settings) -> Finding:
    path = settings.model.path
    try:
        check_name(path)
    except Refused as error:
        return Finding("model", False, path, str(error))
    if is_gguf(path):
        return _gguf(path, ModelCache.at(settings.model.cache))
    if path == "stub" or not path.startswith(("/", ".")):
        return Finding("model", True, path)
    cure = "set model.path to a directory with config.json and safetensors"
    return Finding("model", (Path(path) / "config.json").is_file(), path, cure)


def _gguf(path: str, cache: ModelCache) -> Finding:
    """A model that is converted at the first start: whether it is here, and its cache can be written."""
    try:
        folder = cache.converted(source(path))
        if folder:
            return Finding("model", True, f"{path}, converted in {folder}")
        file = gguf(path, cache)
    except LteError as error:
        return Finding("model", False, path, str(error))
    place = _existing(cache.directory)
    writable = place.is_dir() and os.access(place, os.W_OK)
    seen = f"{path} in {file}, to be converted into {cache.directory} at the first start"
    return Finding("model", writable, seen, f"make {place} writable for this user, or set model.cache")


def _device(settings: Settings) -> Finding:
    if settings.model.device != "cuda":
        cores = len(os.sched_getaffinity(0))
        return Finding("device", True, f"{settings.model.device}, {cores} cores")
    import torch

    cure = "install a CUDA driver and torch's CUDA build, or set model.device = cpu"
    return Finding("device", torch.cuda.is_available(), f"torch {torch.__version__}", cure)


def _kafka(settings: Settings) -> Finding:
    faults = []
    for server in settings.kafka.bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        shown = redact.url(server.strip())
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
                return Finding("kafka", True, f"{shown} accepts connections")
        except (OSError, ValueError) as error:
            faults.append(f"{shown}: {error}")
    cure = "start the broker, or set kafka.bootstrap; `make up` brings one to try things on"
    return Finding("kafka", False, "; ".join(faults), cure)


def _topic(settings: Settings) -> Finding:
    """Whether the topic of edits keeps what it must, with the broker's clock."""
    from daemon.kafka.topics import CREATE_TIME, CREATE_TIME_WARNING, TIMESTAMP_TYPE, look_up

    kafka = settings.kafka
    try:
        configs = look_up(kafka.bootstrap, kafka.security, kafka.topic, timeout_s=_CONNECT_S)
    except NotFound as error:
        cure = "create it: cleanup.policy=delete, retention.ms=-1, message.timestamp.type=LogAppendTime"
        return Finding("topic", False, str(error), cure)
    except LteError as error:
        return Finding("topic", False, str(error), "check kafka.security and this user's rights on the topic")
    seen = f"{kafka.topic}: " + ", ".join(f"{name}={value}" for name, value in sorted(configs.items()))
    if "compact" in configs.get("cleanup.policy", "") and not kafka.allow_compacted:
        return Finding("topic", False, seen, "set cleanup.policy=delete: compaction loses history")
    return Finding("topic", configs.get(TIMESTAMP_TYPE) != CREATE_TIME, seen, CREATE_TIME_WARNING)
