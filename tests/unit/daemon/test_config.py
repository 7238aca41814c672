"""The configuration: layers, typos, limits, and the example that equals the defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from daemon import config
from daemon.config import Settings, environment_name, find_file, flat_values, known_names, load
from daemon.ingest.values import IngestSettings
from daemon.parts.answers import listener_settings
from daemon.rpc.access import Role
from daemon.settings import PublisherRights
from lte_runtime.errors import BadRequest

EXAMPLE = Path(__file__).parents[3] / "docs" / "lte.example.toml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "given.toml"
    path.write_text(text, "utf-8")
    return path


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = _file(tmp_path, '[kafka]\ntopic = "f"\ndlq_topic = "f"\nbootstrap = "f:1"\n')
    loaded = load(file, {"kafka.topic": "flag"}, {"LTE_KAFKA__TOPIC": "e", "LTE_KAFKA__DLQ_TOPIC": "e"})
    kafka = loaded.settings.kafka
    assert (kafka.topic, kafka.dlq_topic, kafka.bootstrap) == ("flag", "e", "f:1")
    assert kafka.group_id == "lte-daemon"
    assert loaded.origins["kafka.topic"] == "flag"
    assert loaded.origins["kafka.dlq_topic"] == "environment"
    assert loaded.origins["kafka.bootstrap"] == f"file {file}"
    assert "kafka.group_id" not in loaded.origins


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LTE_KAFKA__TOPC", "LTE_KAFKA__TOPIC"),
        ("LTE_KAFK__TOPIC", "LTE_KAFKA__TOPIC"),
        ("LTE_STATEDIR", "LTE_STATE_DIR"),
    ],
)
def test_unknown_environment_names_are_errors(name: str, nearest: str) -> None:
    with pytest.raises(BadRequest, match=f"{name} is no setting; did you mean {nearest}"):
        load(environ={name: "x"})


def test_the_value_of_a_deprecated_key_is_ignored_and_a_warning_names_what_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "DEPRECATED", {"realign.gone": "use realign.command", "gone": "use log"})
    file = _file(tmp_path, '[realign]\ngone = 1\nnice = 3\n[gone]\nlevel = "x"\n')
    loaded = load(file, {"realign.gone": 2}, {"LTE_REALIGN__GONE": "3", "LTE_GONE__LEVEL": "y"})
    assert loaded.settings == load(environ={"LTE_REALIGN__NICE": "3"}).settings
    assert sorted(loaded.origins) == ["realign.nice"]
    assert loaded.warnings == (
        f"file {file}: realign.gone is no longer a setting: use realign.command",
        f"file {file}: gone is no longer a setting: use log",
        "environment: realign.gone is no longer a setting: use realign.command",
        "environment: gone is no longer a setting: use log",
        "flag: realign.gone is no longer a setting: use realign.command",
    )


def test_no_deprecated_key_is_a_setting() -> None:
    assert not set(config.DEPRECATED) & set(known_names())
    assert load(environ={"LTE_REALIGN__RUNNER": "command"}).settings.realign.command is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[kafka]\ntopc = "x"\n', r"kafka\.topc is no setting; did you mean kafka\.topic"),
        ('stat_dir = "x"\n', r"stat_dir is no setting; did you mean state_dir"),
        ("[kafak]\n", r"kafak is no setting; did you mean kafka"),
        ("[model]\nmax_batch = 0\n", r"model\.max_batch \(file .*\): .* greater than or equal to 1"),
        ('[model]\nmax_batch = "many"\n', r"model\.max_batch .*valid integer"),
        ("[model\n", "is not TOML"),
        ('[rpc]\nlisten = "0.0.0.0:7000"\n', "needs tls_cert, tls_key and token_file"),
        ('[rpc]\nlisten = "7000"\n', "not host:port"),
        ('[rpc]\ntls_cert = "a.pem"\n', "come together"),
        ('[rpc]\ntls_client_ca = "a.pem"\n', "tls_client_ca needs tls_cert, tls_key, and token_file"),
        ("[rpc]\nsocket_roles = []\n", "nobody could ask"),
        ('[rpc]\nsocket_roles = ["king"]\n', r"rpc\.socket_roles.*'asker', 'publisher' or 'operator'"),
        ('[client]\ntls_cert = "a.pem"\n', "come together"),
        ('[client]\ntls_cert = "a.pem"\ntls_key = "a.key"\n', "tls_cert needs tls_ca"),
        ('[metrics]\nlisten = "0.0.0.0:9000"\n', r"metrics\.public"),
        ("[answer]\nmax_new_tokens = 500\n", "above max_new_tokens_limit"),
        ('[realign]\ncommand = "sbatch align.sh"\n', "command must name {jobdir}"),
        ("[gate]\nthreshold = 1.5\n", r"gate\.threshold .*less than or equal to 1"),
    ],
)
def test_faults_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        load(_file(tmp_path, text), environ={})


def test_a_public_listener_is_allowed_with_tls_and_token(tmp_path: Path) -> None:
    text = '[rpc]\nlisten = "0.0.0.0:7000"\ntls_cert = "c"\ntls_key = "k"\ntoken_file = "t"\n'
    assert load(_file(tmp_path, text), environ={}).settings.rpc.listen == "0.0.0.0:7000"


def test_no_roles_without_a_token_on_a_public_listener(tmp_path: Path) -> None:
    text = '[rpc]\nlisten = "0.0.0.0:7000"\ntls_cert = "c"\ntls_key = "k"\ntoken_file = "t"\n'
    text += 'listen_roles = ["asker"]\n'
    with pytest.raises(BadRequest, match="every call needs a token"):
        load(_file(tmp_path, text), environ={})


def test_roles_of_the_socket() -> None:
    environ = {"LTE_RPC__SOCKET_ROLES": '["asker"]'}
    assert listener_settings(load(environ=environ).settings).socket_roles == (Role.ASKER,)
    assert listener_settings(Settings()).socket_roles == (Role.ASKER, Role.PUBLISHER)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_no_tls(listen: str) -> None:
    assert load(environ={"LTE_RPC__LISTEN": listen}).settings.rpc.listen == listen


def test_client_security_is_passed_through() -> None:
    environ = {"LTE_KAFKA__SECURITY__SASL_MECHANISM": "PLAIN", "LTE_KAFKA__PUBLISHERS": '{"erp": ["prices"]}'}
    kafka = load(environ=environ).settings.kafka
    assert kafka.security == {"sasl_mechanism": "PLAIN"}
    assert kafka.publishers == {"erp": ["prices"]}


def test_a_publisher_is_a_list_of_namespaces_or_a_table_with_names(tmp_path: Path) -> None:
    text = '[kafka.publishers]\nerp = ["prices"]\nhr = { names = ["Acme*"] }\n'
    publishers = load(_file(tmp_path, text), environ={}).settings.kafka.publishers
    assert publishers == {"erp": ["prices"], "hr": PublisherRights(names=["Acme*"])}
    with pytest.raises(BadRequest, match=r"kafka\.publishers"):
        load(_file(tmp_path, '[kafka.publishers]\nhr = { namen = ["Acme"] }\n'), environ={})


def test_broken_json_in_the_environment_is_told() -> None:
    with pytest.raises(BadRequest, match="environment"):
        load(environ={"LTE_KAFKA__PUBLISHERS": '{"erp'})


def test_a_named_file_must_exist_and_a_default_one_may_be_absent(tmp_path: Path) -> None:
    assert find_file(None, {}) is None
    with pytest.raises(BadRequest, match=r"nowhere\.toml does not exist"):
        load(Path("nowhere.toml"), environ={})
    with pytest.raises(BadRequest, match=r"gone\.toml does not exist"):
        load(environ={"LTE_CONFIG": "gone.toml"})
    (tmp_path / "lte.toml").write_text('[kafka]\ntopic = "here"\n', "utf-8")
    assert load(environ={}).settings.kafka.topic == "here"


def test_sockets_live_in_the_state_directory_and_must_fit() -> None:
    assert load(environ={"LTE_STATE_DIR": "/s"}).settings.socket == Path("/s/lte.sock")
    with pytest.raises(BadRequest, match=r"longer than 107 bytes: set rpc\.socket"):
        load(environ={"LTE_STATE_DIR": "/d" * 60})


def test_settings_are_frozen() -> None:
    settings = load(environ={}).settings
    with pytest.raises(ValidationError):
        settings.kafka.topic = "other"
    with pytest.raises(ValidationError):
        settings.state_dir = Path("other")


def test_the_example_loads_and_equals_the_defaults() -> None:
    assert load(EXAMPLE, environ={}).settings == Settings()


def test_the_example_shows_every_setting_with_its_description() -> None:
    text = EXAMPLE.read_text("utf-8")
    section = ""
    shown = set()
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1] + "."
        elif setting := re.match(r"(?:# )?(\w+) = ", line):
            shown.add(section + setting[1])
    assert shown == set(known_names())
    flat = " ".join(text.replace("\n# ", " ").split())
    for description in known_names().values():
        assert " ".join(description.split()) in flat


def test_the_limits_of_ingest_are_the_settings() -> None:
    from daemon.parts.memory import ingest_settings

    environ = {"LTE_KAFKA__POLL_MAX_RECORDS": "5", "LTE_MEMORY__EVENT_MAX_BYTES": "2048"}
    built = ingest_settings(load(environ=environ).settings)
    assert (built.max_records, built.limits.max_bytes) == (5, 2048)
    assert ingest_settings(Settings()) == IngestSettings()


def test_every_setting_has_an_environment_name_and_a_value() -> None:
    values = flat_values(Settings())
    assert set(values) == set(known_names())
    assert environment_name("kafka.topic") == "LTE_KAFKA__TOPIC"
    assert all(known_names().values())
