"""What `lte up` takes from file, environment and flags, what it chooses itself, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from lte_runtime.errors import BadRequest
from ops.stack import Stack
from ops.up_settings import UpSettings, choose


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(directory: Path, text: str) -> Path:
    file = directory / "lte.toml"
    file.write_text(text, "utf-8")
    return file


def stack(directory: Path, chosen: UpSettings) -> Stack:
    return Stack(
        directory / ".lte",
        settings=chosen.environment,
        kafka=chosen.kafka,
        topics=chosen.topics,
        topic=chosen.settings.kafka.topic,
    )


def test_without_settings_everything_is_chosen_below_the_directory(directory: Path) -> None:
    chosen = choose(environ={})
    assert (chosen.kafka, chosen.file) == (None, None)
    assert chosen.state_dir(directory / ".lte") == directory / ".lte" / "state"
    at = stack(directory, chosen).addresses
    assert at.topic == "lte.edits"
    assert at.socket == str(directory / ".lte" / "lte.sock")
    assert at.grpc.startswith("127.0.0.1:")


def test_file_and_environment_reach_the_daemon(directory: Path) -> None:
    file = write(directory, '[kafka]\ntopic = "company.facts"\ndlq_topic = "company.dead"\n')
    chosen = choose(environ={"LTE_ANSWER__K": "3", "LTE_RPC__LISTEN": "127.0.0.1:7000"})
    assert chosen.environment["LTE_CONFIG"] == str(file)
    assert chosen.environment["LTE_ANSWER__K"] == "3"
    at = stack(directory, chosen).addresses
    assert (at.topic, at.grpc) == ("company.facts", "127.0.0.1:7000")
    assert {plan.name for plan in chosen.topics} >= {"company.facts", "company.dead"}


def test_a_state_directory_of_the_settings_has_the_sockets_too(directory: Path) -> None:
    """Where clients that read the same settings look for them."""
    write(directory, 'state_dir = "elsewhere"\n')
    chosen = choose(environ={})
    assert chosen.state_dir(directory / ".lte") == Path("elsewhere")
    assert stack(directory, chosen).addresses.socket == "elsewhere/lte.sock"


def test_topics_that_are_off_are_not_made() -> None:
    names = {plan.name for plan in choose(environ={"LTE_KAFKA__AUDIT_TOPIC": "off"}).topics}
    assert names == {"lte.edits", "lte.edits.dlq", "lte.control", "lte.adapters"}


def test_a_configured_broker_is_used_and_none_is_started() -> None:
    environ = {"LTE_KAFKA__BOOTSTRAP": "a:9092", "LTE_KAFKA__SECURITY__SASL_PLAIN_USERNAME": "lte"}
    chosen = choose(environ=environ)
    assert chosen.kafka is not None
    assert (chosen.kafka.bootstrap, dict(chosen.kafka.security)) == ("a:9092", {"sasl_plain_username": "lte"})


def test_the_flags_are_the_strongest(directory: Path) -> None:
    write(directory, '[model]\npath = "embedded"\n')
    chosen = choose(model="stub", kafka="a:1,b:2", environ={"LTE_MODEL__PATH": "smollm2"})
    assert chosen.kafka is not None
    assert chosen.kafka.bootstrap == "a:1,b:2"
    assert chosen.environment["LTE_MODEL__PATH"] == "stub"
    assert choose(kafka="a:1", environ={"LTE_MODEL__PATH": "smollm2"}).settings.model.path == "smollm2"


def test_an_empty_variable_sets_nothing(directory: Path) -> None:
    chosen = choose(environ={"LTE_RPC__LISTEN": ""})
    assert stack(directory, chosen).addresses.grpc.startswith("127.0.0.1:")


def test_a_warning_of_the_configuration_is_handed_on() -> None:
    assert "kafka.poll_max_ms" in choose(environ={"LTE_KAFKA__POLL_MAX_MS": "3"}).warnings[0]


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({"LTE_KAFKA__BOOTSTRAP": "a:1"}, {"kafka": "b:2"}, ["--kafka b:2", "a:1", "environment"]),
        ({"LTE_KAFKA__SECURITY__SECURITY_PROTOCOL": "SSL"}, {}, ["kafka.security", "--kafka"]),
        ({"LTE_RPC__LISTEN": "127.0.0.1:0"}, {}, ["rpc.listen", "environment"]),
        ({"LTE_METRICS__LISTEN": "127.0.0.1:0"}, {}, ["metrics.listen"]),
        ({}, {"kafka": "localhost"}, ["HOST:PORT"]),
        ({}, {"kafka": "a:1,b:"}, ["HOST:PORT"]),
        ({}, {"kafka": ""}, ["HOST:PORT"]),
        ({}, {"model": " "}, ["--model"]),
        ({"LTE_KAFKA__TOPICS": "x"}, {}, ["LTE_KAFKA__TOPICS", "LTE_KAFKA__TOPIC"]),
        ({"LTE_CONFIG": "nothing.toml"}, {}, ["nothing.toml"]),
    ],
)
def test_contradictions_are_named(environ: dict[str, str], flags: dict[str, str], words: list[str]) -> None:
    with pytest.raises(BadRequest) as error:
        choose(environ=environ, **flags)
    assert all(word in str(error.value) for word in words)


def test_the_same_broker_twice_is_no_contradiction() -> None:
    assert choose(kafka="a:1", environ={"LTE_KAFKA__BOOTSTRAP": "a:1"}).kafka is not None
