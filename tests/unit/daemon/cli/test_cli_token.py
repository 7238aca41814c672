"""`lte token`: what it prints where, what it refuses, and that the file it makes lets the token in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.cli import doctor, exits
from daemon.cli.app import app
from daemon.rpc import token_file
from daemon.rpc.access import Limit, Role

Run = Callable[..., tuple[int, str, str]]
OLD_TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def lte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = exits.guarded(lambda: app(args=["token", *arguments], prog_name="lte"))
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("command", ["new", "list", "convert"])
def test_every_command_has_help_with_an_example(lte: Run, command: str) -> None:
    code, out, _ = lte(command, "--help")
    assert code == 0
    assert f"Example: lte token {command}" in out


def test_a_new_token_is_let_in_by_its_line(lte: Run, tmp_path: Path) -> None:
    code, line, said = lte("new", "--role", "publisher", "--write", "default")
    assert (code, line.count("\n")) == (0, 1)
    token = said.split()[-1]
    assert token not in line
    path = tmp_path / "tokens.toml"
    path.write_text(f"[principals]\n{line}")
    who = token_file.read(path).of_token(token, 0)
    assert (who.roles, who.read, who.write) == ({Role.PUBLISHER}, (), ("default",))
    assert who.name.startswith("publisher-")
    _, other, _ = lte("new", "--role", "publisher", "--write", "default")
    assert other != line


def test_all_options_together(lte: Run, tmp_path: Path) -> None:
    code, _, said = lte(
        "new", "--name", "crm", "--role", "asker", "--role", "publisher", "--read", "crm", "--read", "team-*",
        "--write", "crm", "--expires", "2027-06-30", "--calls-per-s", "2.5", "--burst", "9",
        "--out", "crm.token", "--add-to", "tokens.toml",
    )  # fmt: skip
    assert (code, said) == (0, "")
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "crm.token": 0o600,
        "tokens.toml": 0o600,
    }
    token = (tmp_path / "crm.token").read_text().strip()
    who = token_file.read(tmp_path / "tokens.toml").of_token(token, 1814313599)
    assert (who.roles, who.read, who.write) == ({Role.ASKER, Role.PUBLISHER}, ("crm", "team-*"), ("crm",))
    assert (who.expires_s, who.limit) == (1814313600.0, Limit(2.5, 9))


def test_json(lte: Run) -> None:
    code, out, said = lte("new", "--name", "bot", "--role", "asker", "--read", "*", "--json")
    made = json.loads(out)
    assert (code, said, made["name"]) == (0, "", "bot")
    assert token_file.token_hash(made["token"]).hex() in made["entry"]


def test_a_certificate_has_no_token(lte: Run) -> None:
    options = ("new", "--name", "gw", "--role", "asker", "--read", "*", "--subject", "CN=gw,O=Acme")
    code, out, said = lte(*options)
    assert (code, said) == (0, "")
    assert 'subject = "CN=gw,O=Acme"' in out
    assert "sha256" not in out
    assert lte(*options, "--out", "x")[0] == exits.USAGE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--role", "asker"], "an asker needs namespaces in read"),
        (["--role", "publisher", "--read", "*"], "a publisher needs namespaces in write"),
        (["--role", "king", "--read", "*"], "king"),
        (["--read", "*"], "--role"),
        (["--role", "asker", "--read", "a*b"], "a namespace pattern is"),
        (["--role", "asker", "--read", "*", "--name", "a b"], "a name has 1 to 64"),
        (["--role", "asker", "--read", "*", "--name", "admin.sock"], "is none of"),
        (["--role", "asker", "--read", "*", "--burst", "3"], "--burst needs --calls-per-s"),
        (["--role", "asker", "--read", "*", "--calls-per-s", "0"], "greater than 0"),
        (["--role", "asker", "--read", "*", "--calls-per-s", "nan"], "finite"),
        (["--role", "asker", "--read", "*", "--calls-per-s", "1", "--burst", "0"], "greater than"),
    ],
)
def test_what_could_not_be_read_is_not_made(
    lte: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    code, out, said = lte("new", *options, "--add-to", "tokens.toml", "--out", "token")
    assert (code, out) == (exits.USAGE, "")
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_the_list_shows_rights_and_no_secrets(lte: Run) -> None:
    lte(
        "new",
        "--name",
        "bot",
        "--role",
        "asker",
        "--read",
        "default",
        "--add-to",
        "tokens.toml",
        "--out",
        "t",
    )
    lte(
        "new",
        "--name",
        "gw",
        "--role",
        "operator",
        "--read",
        "*",
        "--subject",
        "CN=gw",
        "--add-to",
        "tokens.toml",
    )
    code, out, _ = lte("list", "--file", "tokens.toml")
    assert code == 0
    assert [line.split("\t")[:3] for line in out.splitlines()[1:]] == [
        ["bot", "asker", "default"],
        ["gw", "operator", "*"],
    ]
    _, text, _ = lte("list", "--file", "tokens.toml", "--json")
    assert [row["subject"] for row in json.loads(text)] == [None, "CN=gw"]
    digest = token_file.token_hash(Path("t").read_text().strip()).hex()
    assert digest in Path("tokens.toml").read_text()
    assert digest not in out + text
    assert lte("list")[0] == exits.USAGE


def test_a_file_of_before(lte: Run) -> None:
    Path("tokens").write_text(f"{OLD_TOKEN}\n")
    code, out, said = lte("list", "--file", "tokens")
    assert (code, OLD_TOKEN in out) == (0, False)
    assert "lte token convert tokens" in said
    code, converted, _ = lte("convert", "tokens")
    Path("tokens.toml").write_text(converted)
    assert OLD_TOKEN not in converted
    assert token_file.read(Path("tokens.toml")).of_token(OLD_TOKEN, 0).write == ("*",)
    assert lte("convert", "tokens.toml")[0] == exits.REFUSED


def test_doctor_looks_at_the_token_file(lte: Run) -> None:
    path = Path("tokens.toml")
    options = ("--role", "asker", "--read", "*", "--add-to", str(path), "--out", "t")
    lte("new", "--name", "old", "--expires", "2001-01-01", *options)
    lte("new", "--name", "bot", *options)
    finding = tokens_of_doctor(path)
    assert (finding.ok, finding.seen) == (True, "tokens.toml: 2 principals, 1 expired")
    path.write_text("[principals]")
    assert not tokens_of_doctor(path).ok


def tokens_of_doctor(path: Path) -> doctor.Finding:
    Path("lte.toml").write_text(f'[rpc]\ntoken_file = "{path}"\n[kafka]\nbootstrap = "127.0.0.1:1"\n')
    return next(finding for finding in doctor.examine(None) if finding.check == "token file")
