"""The command line without a daemon: help, errors that say what to do, exit codes, addresses, output."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.cli import connect, dlq, event_input, exits, output, sending, status
from daemon.cli.app import TABLE, app
from daemon.cli.ask import position
from daemon.cli.connect import Where, find
from daemon.cli.key import key_parts
from daemon.cli.serve import split_setting
from daemon.config import DEPRECATED, environment_name
from lte_runtime import errors
from lte_runtime.errors import BadRequest
from lte_runtime.facts.events import to_json
from lte_runtime.types import Position


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def lte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `lte ARGUMENTS` in this process, in an empty directory and without any LTE_ name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTE_REQUIRE_ALL", raising=False)

    def run(*arguments: str) -> Ran:
        try:
            code = exits.guarded(lambda: app(args=list(arguments), prog_name="lte"))
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


BESIDE = ("up", "demo", "bench")
SUBCOMMANDS = [
    ("edits", "list"),
    ("edits", "show"),
    ("edits", "history"),
    ("edits", "why-not"),
    ("dlq", "list"),
    ("dlq", "show"),
    ("dlq", "replay"),
    ("index", "verify"),
    ("index", "rebuild"),
    ("index", "rekey"),
    ("topics", "create"),
    ("ingest", "resume"),
    ("ingest", "skip"),
    ("config", "show"),
    ("config", "check"),
    ("config", "schema"),
    ("gate", "calibrate"),
    ("gate", "unseen"),
    ("eval", "knowedit"),
]


def test_help_lists_every_command_with_its_line(lte: Run) -> None:
    ran = lte("--help")
    assert ran.code == 0
    for name, entry in TABLE.items():
        assert name in ran.out
        assert entry.help.split(",")[0].split(":")[0] in ran.out


@pytest.mark.parametrize("name", [name for name in TABLE if name not in BESIDE])
def test_every_command_has_help(lte: Run, name: str) -> None:
    ran = lte(name, "--help")
    assert ran.code == 0
    assert f"Usage: lte {name}" in ran.out
    assert "--install-completion" not in ran.out


@pytest.mark.parametrize("names", SUBCOMMANDS, ids=" ".join)
def test_every_subcommand_has_help_with_an_example_and_json(lte: Run, names: tuple[str, str]) -> None:
    ran = lte(*names, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert "--json" in ran.out


@pytest.mark.parametrize(
    "name", ["ask", "publish", "retract", "erase", "status", "doctor", "accept-gap", "backup", "restore"]
)
def test_plain_commands_have_json(lte: Run, name: str) -> None:
    assert "--json" in lte(name, "--help").out


def test_an_unknown_command_is_usage_and_names_the_nearest(lte: Run) -> None:
    ran = lte("pubish")
    assert ran.code == exits.USAGE
    assert "publish" in ran.err


def test_version(lte: Run) -> None:
    assert lte("--version").out.startswith("lte-daemon ")


@pytest.mark.parametrize("arguments", [("ask", "Who?"), ("edits", "list"), ("status",), ("dlq", "list")])
def test_without_a_daemon_the_error_says_how_to_start_one(lte: Run, arguments: tuple[str, ...]) -> None:
    ran = lte(*arguments)
    assert ran.code == exits.UNREACHABLE
    assert "lte serve" in ran.err
    assert "does not exist" in ran.err
    assert ran.out == ""


def test_a_daemon_that_does_not_answer_is_unreachable(lte: Run) -> None:
    ran = lte("ask", "Who?", "--address", "127.0.0.1:1")
    assert ran.code == exits.UNREACHABLE
    assert "looked at 127.0.0.1:1" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("publish",), "name the fact"),
        (("publish", "-s", "A", "-t", "B"), "--subject and --relation"),
        (("publish", "gone.jsonl"), "gone.jsonl"),
        (("publish", "some.jsonl", "-t", "B"), "whole events"),
        (("retract",), "name the fact"),
        (("retract", "e-1", "-s", "A"), "not both"),
        (("edits", "history", "-s", "A"), "name the fact"),
        (("erase", "A/B", "--yes"), "NAMESPACE/SUBJECT/RELATION"),
        (("dlq", "replay"), "--all"),
        (("ask", "Who?", "--at-least", "nonsense"), "TOPIC_ID/PARTITION/OFFSET"),
        (("ask", "Who?", "--address", "a:1", "--socket", "b"), "give one of them"),
        (("serve", "--set", "nonsense"), "section.field=value"),
        (("serve", "--set", "model.max_bach=4"), "did you mean model.max_batch"),
        (("config", "check", "-c", "gone.toml"), "does not exist"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    lte: Run, arguments: tuple[str, ...], message: str
) -> None:
    ran = lte(*arguments)
    assert ran.code == exits.USAGE
    assert message in ran.err


@pytest.mark.parametrize("arguments", [("demo", "--fast"), ("eval", "--help"), ("gate", "calibrate", "-h")])
def test_commands_beside_the_package_say_so_where_they_are_absent(
    lte: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    ran = lte(*arguments)
    assert ran.code == exits.FAILED
    assert "checkout" in ran.err
    assert f".venv/bin/lte {arguments[0]}" in ran.err


def test_config_show_says_where_a_value_comes_from(lte: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTE_KAFKA__TOPIC", "company.facts")
    shown = json.loads(lte("config", "show", "--changed", "--json").out)
    assert shown == {"kafka.topic": {"value": "company.facts", "origin": "environment"}}


SECRET = "hunter2/+@x"


@pytest.mark.parametrize("json_", [(), ("--json",)])
@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("LTE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD", SECRET, "***"),
        ("LTE_KAFKA__SECURITY__SSL_PASSWORD", SECRET, "***"),
        ("LTE_KAFKA__SECURITY__A_NAME_OF_TOMORROW", SECRET, "***"),
        ("LTE_KAFKA__SECURITY__PROXY_URL", f"socks5://lte:{SECRET}@proxy:1080", "socks5://***@proxy:1080"),
        ("LTE_KAFKA__BOOTSTRAP", "a:1,lte:hunter2@b:2", "a:1,***@b:2"),
        ("LTE_REGISTRY__URL", f"s3://key:{SECRET}@bucket/lte", "s3://***@bucket/lte"),
        ("LTE_REGISTRY__URL", "https://host/lte?token=hunter2&x=1", "https://host/lte?***"),
    ],
)
def test_config_show_hides_secrets(
    lte: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: str, json_: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("LTE_KAFKA__SECURITY__SASL_PLAIN_USERNAME", "lte")
    ran = lte("config", "show", *json_)
    assert "hunter2" not in ran.out + ran.err
    assert shown in ran.out
    assert "sasl_plain_username" in ran.out


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ('[kafka.security]\nsasl_plain_password = ["hunter2"]\n', {}),
        ('[kafka]\nsecurity = "hunter2"\n', {}),
        ("[kafka.security]\nsasl_plain_password = hunter2\n", {}),
        ("", {"LTE_KAFKA__SECURITY": "hunter2"}),
        ("", {"LTE_KAFKA__SECURITY": '{"sasl_plain_password": ["hunter2"]}'}),
        ("", {"LTE_KAFKA": '{"security": "hunter2"'}),
    ],
)
def test_a_fault_of_the_configuration_tells_no_secret(
    lte: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, environment: dict[str, str]
) -> None:
    (tmp_path / "faulty.toml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = lte("config", "check", "-c", str(tmp_path / "faulty.toml"))
    assert ran.code == exits.USAGE
    assert "hunter2" not in ran.out + ran.err


def test_a_setting_that_is_misspelt_on_the_command_line_tells_no_secret(lte: Run) -> None:
    ran = lte("serve", "--set", "kafka.security.sasl_plain_password:hunter2")
    assert ran.code == exits.USAGE
    assert "kafka.security.sasl_plain_password" in ran.err
    assert "hunter2" not in ran.out + ran.err


def test_settings_in_a_log_line_or_a_traceback_tell_no_secret() -> None:
    from daemon.config import load

    security = {"kafka.security.sasl_plain_password": "hunter2", "registry.url": "s3://a:hunter2@b"}
    assert "hunter2" not in repr(load(flags=security, environ={}).settings)


def test_config_schema_is_a_json_schema(lte: Run) -> None:
    schema = json.loads(lte("config", "schema").out)
    assert schema["properties"]["state_dir"]["description"]
    assert schema["additionalProperties"] is False


def test_config_check_names_faults(lte: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lte("config", "check").code == 0
    monkeypatch.setenv("LTE_MODEL__MAX_BATCH", "0")
    ran = lte("config", "check")
    assert ran.code == exits.USAGE
    assert "model.max_batch (environment)" in ran.err


def test_config_check_and_serve_warn_of_keys_that_are_no_longer_settings(
    lte: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTE_REALIGN__RUNNER", "local")
    warning = "environment: realign.runner is no longer a setting: realign.command alone decides"
    ran = lte("config", "check")
    assert ran.code == 0
    assert f"warning: {warning}" in ran.err
    assert json.loads(lte("config", "check", "--json").out)["warnings"][0].startswith(warning)
    monkeypatch.setattr("daemon.process.serve", lambda _settings: None)
    ran = lte("serve")
    assert ran.code == 0
    assert "setting_deprecated" in ran.err
    assert warning in ran.err


@pytest.mark.parametrize("source", ["file", "environment"])
def test_config_check_accepts_every_deprecated_key_with_its_warning(
    lte: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    path = tmp_path / "old.toml"
    path.write_text("".join(f'{name} = "old"\n' for name in DEPRECATED if source == "file"), "utf-8")
    for name in DEPRECATED if source == "environment" else ():
        monkeypatch.setenv(environment_name(name), "old")
    origin = f"file {path}" if source == "file" else "environment"
    ran = lte("config", "check", "-c", str(path), "--json")
    assert ran.code == 0
    assert json.loads(ran.out) == {
        "ok": True,
        "file": str(path),
        "set": [],
        "warnings": [f"{origin}: {name} is no longer a setting: {what}" for name, what in DEPRECATED.items()],
    }


@pytest.mark.parametrize("key", ["kafka.poll_max_hours", "drift.seeds", "realign.keep"])
def test_config_check_refuses_keys_that_never_were_settings(
    lte: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    path = tmp_path / "old.toml"
    path.write_text(f"{key} = 1\n", "utf-8")
    ran = lte("config", "check", "-c", str(path))
    assert ran.code == exits.USAGE
    assert f"{key} is no setting" in ran.err
    monkeypatch.setenv(environment_name(key), "1")
    ran = lte("config", "check")
    assert ran.code == exits.USAGE
    assert f"{environment_name(key)} is no setting" in ran.err


def test_a_mistyped_environment_name_stops_the_client_commands_too(
    lte: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTE_CLIENT__ADRESS", "unix:/x")
    ran = lte("ask", "Who?")
    assert ran.code == exits.USAGE
    assert "did you mean LTE_CLIENT__ADDRESS" in ran.err


def test_doctor_names_the_cure(lte: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTE_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    ran = lte("doctor", "--json")
    found = {finding["check"]: finding for finding in json.loads(ran.out)}
    assert ran.code == exits.FAILED
    assert found["python"]["ok"]
    assert not found["kafka"]["ok"]
    assert "kafka.bootstrap" in found["kafka"]["cure"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequest("x"), 2),
        (errors.Retry("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.Refused("x"), 5),
        (errors.DeadlineExceeded("x"), 6),
        (errors.Overloaded("x"), 7),
        (errors.Damaged("x"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
    ],
)
def test_each_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise error

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert exits.guarded(fail) == code


class TestWhere:
    """Which place is believed: flags, environment, file, `.lte/up.json`, defaults."""

    @pytest.fixture(autouse=True)
    def _in_an_empty_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def _up(self, **addresses: str) -> None:
        Path(".lte").mkdir()
        Path(".lte/up.json").write_text(json.dumps(addresses), "utf-8")

    def test_defaults(self) -> None:
        where = find(Where(), environ={})
        assert where.address == f"unix:{Path('.lte/state/lte.sock').absolute()}"
        assert where.admin_address == f"unix:{Path('.lte/state/admin.sock').absolute()}"
        assert (where.bootstrap, where.topic, where.timeout_s) == ("127.0.0.1:9092", "lte.edits", 30.0)

    def test_up_json_is_found(self) -> None:
        self._up(kafka="h:1", topic="t", grpc="h:2", socket="/s/lte.sock", admin_socket="/s/admin.sock")
        where = find(Where(), environ={})
        assert where == Where("unix:/s/lte.sock", "unix:/s/admin.sock", "h:1", "t", None, None, None, 30.0)

    def test_the_file_beats_up_json_and_the_environment_beats_the_file(self) -> None:
        self._up(kafka="up:1", topic="up", socket="/up.sock")
        Path("lte.toml").write_text('[kafka]\nbootstrap = "file:1"\ntopic = "file"\n', "utf-8")
        where = find(Where(), environ={"LTE_KAFKA__BOOTSTRAP": "env:1"})
        assert (where.bootstrap, where.topic, where.address) == ("env:1", "file", "unix:/up.sock")

    def test_flags_beat_all(self) -> None:
        flags = connect.flags(address="h:1", bootstrap="b:1", timeout=2.0)
        where = find(flags, environ={"LTE_CLIENT__ADDRESS": "env:1", "LTE_KAFKA__BOOTSTRAP": "env:1"})
        assert (where.address, where.bootstrap, where.timeout_s) == ("h:1", "b:1", 2.0)

    def test_a_state_directory_moves_both_sockets(self) -> None:
        where = find(Where(), environ={"LTE_STATE_DIR": "/s"})
        assert (where.address, where.admin_address) == ("unix:/s/lte.sock", "unix:/s/admin.sock")

    def test_a_daemon_elsewhere_with_a_certificate(self) -> None:
        client = '[client]\nadmin_address = "h:2"\ntls_ca = "ca"\ntls_cert = "cert"\ntls_key = "file-key"\n'
        Path("lte.toml").write_text(client, "utf-8")
        where = find(Where(), environ={"LTE_CLIENT__TLS_KEY": "env-key"})
        assert (where.admin_address, where.tls_ca) == ("h:2", "ca")
        assert (where.tls_cert, where.tls_key) == ("cert", "env-key")

    def test_security_comes_from_the_environment(self) -> None:
        where = find(Where(), environ={"LTE_KAFKA__SECURITY__SASL_MECHANISM": "PLAIN"})
        assert where.security == {"sasl_mechanism": "PLAIN"}

    def test_a_broken_up_json_is_named(self) -> None:
        Path(".lte").mkdir()
        Path(".lte/up.json").write_text("{", "utf-8")
        with pytest.raises(BadRequest, match=r"up\.json is not JSON"):
            find(Where(), environ={})


class TestReport:
    """What `lte publish` says of long texts."""

    SENT = sending.Sent(
        [
            {"prompt": "word " * 255, "target": "x"},
            {"subject": "S", "relation": "r", "target": "x", "statement": "word " * 255},
            {"subject": "S", "relation": "r", "target": "x", "statement": "word " * 254},
        ],
        [Position("T", 0, n) for n in range(3)],
        0.1,
    )

    def test_texts_that_no_encoder_of_that_size_reads_are_named_at_once(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sending.report(self.SENT, None, json_=False)
        notes = capsys.readouterr().err
        assert "1 of them: prompt (or subject and relation) longer than the encoder reads at once" in notes
        assert (
            "2 of them: statement longer than the encoder reads: shown to the model, but not search" in notes
        )

    def test_after_waiting_the_daemons_own_flags_count(self, capsys: pytest.CaptureFixture[str]) -> None:
        sending.report(self.SENT, sending.Waited(0.1, [], {"long_statement": 3}, {}), json_=True)
        assert json.loads(capsys.readouterr().out)["long_texts"] == {"long_statement": 3}

    def test_names_of_others_are_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        waited = sending.Waited(0.1, [], {}, {"foreign_name": 2})
        sending.report(self.SENT, waited, json_=False)
        assert "2 of them: a name that facts of another publisher have" in capsys.readouterr().err
        sending.report(self.SENT, waited, json_=True)
        assert json.loads(capsys.readouterr().out)["doubtful_names"] == {"foreign_name": 2}

    def test_short_texts_need_no_word(self, capsys: pytest.CaptureFixture[str]) -> None:
        short = sending.Sent(self.SENT.events[2:], self.SENT.positions[2:], 0.1)
        sending.report(short, None, json_=True)
        assert json.loads(capsys.readouterr().out)["long_texts"] == {}


class TestEvents:
    """Events from flags, lines and arrays."""

    def test_flags_without_values_are_left_out(self) -> None:
        event = event_input.from_flags(
            op="assert", subject="A", relation="r", target="t", subject_aliases=None, source_uri="u", id=None
        )
        assert event == {
            "op": "assert",
            "subject": "A",
            "relation": "r",
            "target": "t",
            "source": {"uri": "u"},
        }

    def test_lines_and_arrays_give_the_same(self) -> None:
        events = [{"subject": "A"}, {"subject": "B"}]
        lines = [json.dumps(event) + "\n" for event in events]
        assert list(event_input.from_lines(["\n", *lines], "f")) == events
        assert list(event_input.from_lines(json.dumps(events, indent=1).splitlines(), "f")) == events

    def test_a_number_as_target_reaches_kafka_as_it_stands_in_the_file(self) -> None:
        lines = ['{"target": 1.50, "revision": 7, "target_aliases": [1e3, true]}']
        (event,) = event_input.from_lines(lines, "f")
        value = b'{"target": "1.50", "revision": 7, "target_aliases": ["1e3", "true"]}'
        assert to_json(event) == value
        (same,) = event_input.from_lines([f"[{lines[0]}]"], "f")
        assert to_json(same) == value

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (['{"subject": "A"}', "nonsense"], "f, line 2 is not JSON"),
            (["7"], "f, line 1 is not a JSON object"),
            (["[1]"], "f, item 1 is not a JSON object"),
            (['[{"a": 1}'], "f is not JSON"),
            (['{"target": NaN}'], "f, line 1 is not JSON: NaN"),
            (['{"id": "a", "id": "b"}'], "f, line 1 is not JSON: JSON name 'id' occurs twice"),
        ],
    )
    def test_faults_name_the_line(self, lines: list[str], message: str) -> None:
        with pytest.raises(BadRequest, match=message):
            list(event_input.from_lines(lines, "f"))


def test_keys_and_positions_are_read() -> None:
    assert key_parts("n", "S", "r", None) == ("n", "S", "r")
    assert key_parts("n", None, None, "Who?") == ("n", "Who?", "")
    assert key_parts("n", None, None, None, "d/S/r") == ("d", "S", "r")
    assert position("abc/0/17") == {"topic_id": "abc", "partition": 0, "offset": 17}
    assert split_setting("a.b=c=d") == ("a.b", "c=d")


def test_tables_in_a_pipe_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [("x\ty", 0.5), (None, "two\nlines")])
    assert capsys.readouterr().out == "a\tb\nx y\t0.500\n-\ttwo lines\n"


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    """A real process, waiting for stdin, gets SIGINT.

    Not while it imports: there Python may meet the signal where it can only report it and go on.
    """
    script = (
        "import os, signal, sys, threading\n"
        # A shell starts what runs in its background with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Stdin:\n"
        "    def __iter__(self):\n"
        "        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "        yield from sys.__stdin__\n"
        "sys.stdin = Stdin()\n"
        "sys.argv = ['lte', 'publish', '-']\n"
        "from daemon.cli import main\n"
        "main()\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with waiting:
        assert waiting.wait(timeout=60) == 130
        assert waiting.stderr is not None
        assert b"Traceback" not in waiting.stderr.read()


def test_replay_all_takes_what_waits_as_many_as_a_call_may() -> None:
    """Neither replayed nor erased ones, which the daemon refuses; and it looks no further than it must."""
    states = ("pending", "dead_lettered", "replayed", "erased")
    endless = ({"id": number, "state": states[number % 4]} for number in itertools.count())
    chosen = dlq.waiting(endless)
    assert chosen[:4] == [0, 1, 4, 5]
    assert len(chosen) == 1000
    assert dlq.waiting([]) == []


@pytest.mark.parametrize("items", [[], [1], [{"a": "é"}, None, [2.5]]])
def test_a_list_is_one_json_document_as_printed_at_once(
    items: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    output.as_json_list(iter(items))
    assert capsys.readouterr().out == json.dumps(items, ensure_ascii=False) + "\n"


def test_an_error_before_the_first_row_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> Iterator[tuple[str]]:
        raise errors.NotFound("no edit")
        yield ("never",)

    for show in (output.as_json_list, lambda rows: output.table(("a",), rows)):
        with pytest.raises(errors.NotFound):
            show(failing())
    assert capsys.readouterr().out == ""


def test_the_status_of_many_namespaces_counts_them() -> None:
    memory = {"vectors_live": 9, "vectors_dead": 0, "index_path": {"a": "exact", "b": "hnsw"}}
    assert status._index(memory) == "9 live, 0 dead (a: exact, b: hnsw)"
    memory["index_path"] = {f"n{number}": "exact" for number in range(2000)} | {"b": "hnsw"}
    assert status._index(memory) == "9 live, 0 dead (2001 namespaces: 2000 exact, 1 hnsw)"
