"""Reading the configuration: defaults, TOML file, environment, flags - from weak to strong.

The environment's names are `LTE_SECTION__FIELD`. An unknown key or an unknown `LTE_` name is an error that
names the nearest known one; `Loaded.origins` says where each value came from. A key in `DEPRECATED` is
accepted, its value is ignored, and `Loaded.warnings` names what replaces it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from daemon.settings import PREFIX, SECURITY_SHOWN, Settings
from lte_runtime import redact
from lte_runtime.errors import BadRequest

__all__ = ["Loaded", "Settings", "load"]

DEFAULT_FILE = Path("lte.toml")
# Names with the prefix that are no settings: the file's path, what CI promises, and the rig's failpoints.
RESERVED_NAMES = frozenset({"LTE_CONFIG", "LTE_REQUIRE_ALL", "LTE_FAILPOINTS"})
# Dotted name of a key (or section) that is no longer a setting -> what replaces it, a clause that ends the
# warning. A line is removed one version after it was added: the key is an error then.
DEPRECATED: Mapping[str, str] = {
    "realign.runner": "realign.command alone decides; without it a job is a child process of this machine",
    "kafka.poll_max_bytes": "a batch takes at most 4 MiB",
    "kafka.poll_max_ms": "a batch gathers for at most 20 ms",
    "kafka.bad_window_s": "bad records of a publisher are counted over 60 s",
    "kafka.bad_min": "20 bad records of one publisher raise an alert when they are a fifth of its records",
    "kafka.bad_share": "a fifth of a publisher's records raises an alert when it is 20 bad records",
    "kafka.bad_publishers_max": "1,000 publishers are counted apart, further ones share one count",
    "kafka.dlq_retry_s": "the first pause after the dead-letter topic failed is 0.5 s",
    "kafka.dlq_retry_max_s": "the longest pause after the dead-letter topic failed is 30 s",
    "kafka.dlq_timeout_s": "a dead letter gets 10 s to be acknowledged",
    "kafka.reconnect_s": "the first pause after no broker was reached is 0.2 s",
    "kafka.reconnect_max_s": "the longest pause after no broker was reached is 2 s",
    "memory.hnsw_from": "memory.index_mode = auto takes HNSW from 5,000 vectors of a namespace",
    "memory.rebuild_dead_share": "an index is rebuilt when a fifth of its vectors is dead",
    "memory.encode_batch": "the encoder takes 512 texts at once",
    "memory.snapshot_keep": "two snapshots are kept",
    "memory.maintain_interval_s": "the share of dead vectors is checked every 5 s",
    "memory.recall_interval_s": "the recall of the index is checked every 10 minutes",
    "memory.event_max_depth": "the JSON of an event is at most 32 deep",
    "answer.hops": "chains of up to three facts are followed",
    "answer.whole_chain": "the prompt holds the last hop of a chain; all hops are cited",
    "answer.restate": "each fact is put in plain words before the publisher's own sentence",
    "drift.facts": "eight facts are drawn for each of drift.probes",
    "drift.max_new_tokens": "an answer to a probe has at most 32 tokens",
    "drift.seed": "the number of the cycle alone seeds the sample of probes",
    "drift.window": "the first 256 questions, and edits, are the reference of a shift",
    "drift.sample": "64 questions, or edits, are compared with the reference at a time",
    "realign.max_file_bytes": "a job writes no file of more than 8 GiB",
    "realign.keep_jobs": "the three newest job directories are kept, without weights",
    "realign.seed": "the number of a run is its seed",
    "registry.watch_least": "a fall counts from 48 probes of each adapter",
}


@dataclass(frozen=True)
class Loaded:
    """The settings with, for each dotted name that is not a default, the place that set it; `warnings` for
    the keys that are no longer settings."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None
    warnings: tuple[str, ...] = ()


def load(
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Settings from file, environment and flags (dotted name -> value), from weak to strong.

    Without `file`, `LTE_CONFIG` and then `./lte.toml` are taken when they are there. Raises `BadRequest`
    with every fault and what to do about it.
    """
    environment = os.environ if environ is None else environ
    path = find_file(file, environment)
    layers = (
        (f"file {path}", _read_file(path) if path else {}),
        ("environment", _read_environment(environment)),
        ("flag", _nest(flags or {})),
    )
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    warnings: list[str] = []
    for origin, values in layers:
        deprecated = [name for name in DEPRECATED if _take_out(values, name.split("."))]
        warnings += [f"{origin}: {name} is no longer a setting: {DEPRECATED[name]}" for name in deprecated]
        _refuse_unknown_keys(values, origin)
        merged = _merge(merged, values)
        origins.update({name: origin for name, _ in _flatten(values)})
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise BadRequest(_explain(error, origins)) from None
    return Loaded(settings, origins, path, tuple(warnings))


def find_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one that was named, which must exist, or `./lte.toml` when it does."""
    named = file or (Path(environ["LTE_CONFIG"]) if environ.get("LTE_CONFIG") else None)
    if named is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    if not named.is_file():
        raise BadRequest(f"configuration file {named} does not exist")
    return named


def known_names() -> dict[str, str]:
    """Every setting: dotted name -> description."""
    return {name: field.description or "" for name, field, is_section in _walk(Settings) if not is_section}


def environment_name(dotted: str) -> str:
    """`kafka.topic` -> `LTE_KAFKA__TOPIC`."""
    return PREFIX + dotted.replace(".", "__").upper()


def flat_values(settings: Settings) -> dict[str, Any]:
    """Dotted name -> value, plain JSON types, for display: secrets are hidden."""
    dumped = settings.model_dump(mode="json")
    names = known_names()
    return {name: _shown(name, _look_up(dumped, name)) for name in names}


def _shown(name: str, value: Any) -> Any:
    """Of kafka.security only what is known to be no secret; URLs without credentials."""
    if name == "kafka.security":
        return {
            key: _shown("", part) if key in SECURITY_SHOWN else redact.HIDDEN for key, part in value.items()
        }
    return redact.url(value) if isinstance(value, str) else value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is not TOML: {error}") from None


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    refuse_unknown_environment(environ)
    source = EnvSettingsSource(Settings)
    deprecated = {name: _deprecated(name) for name in environ}
    source.env_vars = {
        name.lower(): value for name, value in environ.items() if value and not deprecated[name]
    }
    try:
        return _merge(source(), _nest({old: "" for old in deprecated.values() if old}))
    except ValueError as error:
        raise BadRequest(f"environment: {error}: {error.__cause__}") from None


def refuse_unknown_environment(environ: Mapping[str, str]) -> None:
    names = {environment_name(name) for name, _, _ in _walk(Settings)} | RESERVED_NAMES
    open_ended = tuple(environment_name(name) + "__" for name in _open_names())
    for name in environ:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in names or upper.startswith(open_ended):
            continue
        if _deprecated(name):
            continue
        raise BadRequest(f"environment: {name} is no setting{_nearest(upper, names)}")


def _deprecated(variable: str) -> str:
    """The deprecated key that an environment variable sets, itself or below it; empty for none."""
    parts = variable.upper() + "__"
    return next((old for old in DEPRECATED if parts.startswith(environment_name(old) + "__")), "")


def _take_out(values: dict[str, Any], path: list[str]) -> bool:
    """Remove a key, and the sections that are empty then; whether it was there."""
    name, *below = path
    if name not in values:
        return False
    if not below:
        del values[name]
        return True
    section = values[name]
    if not isinstance(section, dict) or not _take_out(section, below):
        return False
    if not section:
        del values[name]
    return True


def _refuse_unknown_keys(values: Mapping[str, Any], origin: str) -> None:
    names = {name for name, _, _ in _walk(Settings)}
    open_ended = tuple(name + "." for name in _open_names())
    for name, _ in _flatten(values):
        if name in names or name.startswith(open_ended):
            continue
        raise BadRequest(f"{origin}: {name} is no setting{_nearest(name, names)}")


def _nearest(name: str, names: set[str]) -> str:
    match = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    return f"; did you mean {match[0]}?" if match else "; `lte config show` lists them all"


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        yield prefix + name, field, is_section
        if is_section and isinstance(kind, type):
            yield from _walk(kind, f"{prefix}{name}.")


def _open_names() -> list[str]:
    """Settings that are mappings: any name is allowed below them."""
    return [name for name, field, _ in _walk(Settings) if field.default_factory is dict]


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        room = nested
        for parent in parents:
            room = room.setdefault(parent, {})
        room[last] = value
    return nested


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weak)
    for name, value in strong.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _look_up(dumped: Mapping[str, Any], dotted: str) -> Any:
    value: Any = dumped
    for part in dotted.split("."):
        value = value[part]
    return value


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        origin = origins.get(name)
        place = f" ({origin})" if origin else ""
        lines.append(f"{name or 'configuration'}{place}: {fault['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
