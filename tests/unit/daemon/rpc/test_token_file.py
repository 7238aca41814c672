"""Token files: what they may say, what they may not, and that a refusal quotes no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.rpc import token_file
from daemon.rpc.access import Access, Limit, Principal, Role, Unauthenticated
from daemon.rpc.token_file import SECTION, Principals, entry_line, new_token, token_hash
from lte_runtime.errors import BadRequest, Refused

TOKEN = "a-token-that-nobody-guesses"
SECRET = "canary-4be1c7"
HASH = token_hash(TOKEN).hex()
NAMES = st.text("abcxyz019-_.", min_size=1, max_size=20).filter(lambda name: name[0].isalnum())
PATTERNS = st.sampled_from(["*", "default", "team-*", "ärzte", "a b", 'quote"d', "back\\slash"])


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    return path


def read(tmp_path: Path, *lines: str) -> Principals:
    return token_file.read(written(tmp_path, "\n".join((SECTION, *lines))))


def test_an_entry(tmp_path: Path) -> None:
    principals = read(
        tmp_path,
        f'bot = {{ role = ["asker", "publisher"], read = ["Team-*", "default"], write = ["x"], '
        f'expires = 2027-01-01, calls_per_s = 0.5, sha256 = "{HASH.upper()}" }}',
        'gw = { role = "operator", read = ["*"], subject = "CN=gw,O=Acme" }',
    )
    bot = principals.of_token(TOKEN, 0)
    assert bot == Principal(
        "bot",
        frozenset({Role.ASKER, Role.PUBLISHER}),
        ("team-*", "default"),
        ("x",),
        expires_s=1798761600.0,
        limit=Limit(0.5, 1),
    )
    assert principals.of_subject("CN=gw,O=Acme", 0).roles == {Role.OPERATOR}
    assert not principals.warnings


@given(
    name=NAMES,
    roles=st.sets(st.sampled_from(Role), min_size=1),
    patterns=st.lists(PATTERNS, min_size=1, max_size=4),
    expires=st.none() | st.integers(0, 4_000_000_000),
    limit=st.none() | st.builds(Limit, st.floats(1e-6, 1e6), st.integers(1, 1000)),
)
def test_an_entry_that_was_written_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str, roles: set[Role], patterns: list[str], **rest: Any
) -> None:
    token, namespaces = new_token(), tuple(patterns)
    principal = Principal(name, frozenset(roles), namespaces, namespaces, rest["expires"], rest["limit"])
    line = entry_line(principal, {"sha256": token_hash(token).hex()})
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(f"{SECTION}\n{line}\n")
    assert token_file.read(path).of_token(token, -1) == principal


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("default", True),
        ("team-a", True),
        ("team-", True),
        ("team", False),
        ("defaults", False),
        ("*", False),
    ],
)
def test_patterns(namespace: str, expected: bool) -> None:
    principal = Principal("bot", frozenset(Role), read=("default", "team-*"))
    assert principal.may(Access.READ, namespace) == expected
    assert not principal.may(Access.WRITE, namespace)


def test_expired_unknown_and_not_yet(tmp_path: Path) -> None:
    line = f'bot = {{ role = "asker", read = ["*"], expires = 1970-01-01T00:01:40Z, sha256 = "{HASH}" }}'
    principals = read(tmp_path, line)
    assert principals.of_token(TOKEN, 99.9).name == "bot"
    for token, now_s, why in ((TOKEN, 100.0, "expired"), (TOKEN + "x", 0.0, "unknown")):
        with pytest.raises(Unauthenticated) as caught:
            principals.of_token(token, now_s)
        assert caught.value.why == why
    with pytest.raises(Unauthenticated):
        principals.of_subject("CN=gw", 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with"),
        (b"\n \n", "must begin with"),
        (b"short\n", "16 characters"),
        (b"\xff\xfe" * 20, "not UTF-8"),
        (b"[principals]\n", "must hold 1 to"),
        (b"[principals]\nbot = {", "not TOML"),
        (b"[principals]\nbot = { role = 'asker', read = ['*'], sha256 = 'canary-4be1c7' }", "bot: sha256"),
        (b"[principals]\nbot = { role = 'canary-4be1c7', read = ['*'], sha256 = '%s' }", "role must be of"),
        (b"[principals]\nbot = { role = 'asker', sha256 = '%s' }", "an asker needs namespaces in read"),
        (
            b"[principals]\nbot = { role = 'publisher', read = ['*'], sha256 = '%s' }",
            "needs namespaces in write",
        ),
        (b"[principals]\nbot = { role = 'operator', sha256 = '%s' }", "name namespaces in read"),
        (b"[principals]\nbot = { role = [], read = ['*'], sha256 = '%s' }", "role is empty"),
        (b"[principals]\nbot = { role = 'asker', read = ['*'] }", "give either sha256"),
        (b"[principals]\nbot = { role = 'asker', read = ['*'], subject = '', sha256 = '%s' }", "subject"),
        (b"[principals]\nbot = { role = 'asker', read = ['a*b'], sha256 = '%s' }", "a prefix and"),
        (b"[principals]\nbot = { role = 'asker', read = ['**'], sha256 = '%s' }", "a prefix and"),
        (b"[principals]\nbot = { role = 'asker', read = [' '], sha256 = '%s' }", "a prefix and"),
        (b"[principals]\nbot = { role = 'asker', read = '*', sha256 = '%s' }", "read"),
        (b"[principals]\nbot = { role = 'asker', read = ['*'], burst = 3, sha256 = '%s' }", "burst needs"),
        (b"[principals]\nbot = { role = 'asker', read = ['*'], calls_per_s = 0, sha256 = '%s' }", "greater"),
        (
            b"[principals]\nbot = { role = 'asker', read = ['*'], 'canary-4be1c7' = 3, sha256 = '%s' }",
            "unknown",
        ),
        (
            b"[principals]\n'canary-4be1c7 ' = { role = 'asker', read = ['*'], sha256 = '%s' }",
            "entry 1: a name",
        ),
        (b"[principals]\n'lte.sock' = { role = 'asker', read = ['*'], sha256 = '%s' }", "entry 1: a name"),
        (b"[principals]\nbot = 'canary-4be1c7'", "bot: "),
        (b"[principals]\ncanary-4be1c7\n", "not TOML"),
        (b"'canary-4be1c7' = 1\n[principals]\nbot = 1", "something beside"),
        (b"bot = { role = 'asker', read = ['*'], sha256 = '%s' }", "no line"),
    ],
)
def test_what_is_no_token_file_is_refused_without_quoting_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_bytes(content.replace(b"%s", HASH.encode()))
    with pytest.raises(Refused, match=message) as caught:
        token_file.read(path)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert HASH not in str(caught.value)


def test_one_token_has_one_entry(tmp_path: Path) -> None:
    entry = f'{{ role = "asker", read = ["*"], sha256 = "{HASH}" }}'
    with pytest.raises(Refused, match="two and one have the same token"):
        read(tmp_path, f"one = {entry}", f"two = {entry}")


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, TOKEN)
    path.chmod(0o666)
    with pytest.raises(Refused, match="chmod o-w"):
        token_file.read(path)
    with pytest.raises(Refused, match="cannot be read"):
        token_file.read(tmp_path / "absent")


def test_a_file_of_before_keeps_its_rights_and_warns(tmp_path: Path) -> None:
    path = written(tmp_path, f"{TOKEN}\n\n  another-token-of-some-length\n")
    principals = token_file.read(path)
    for token in (TOKEN, "another-token-of-some-length"):
        who = principals.of_token(token, 0)
        assert who.roles == {Role.ASKER, Role.PUBLISHER}
        assert who.may(Access.WRITE, "anything")
        assert who.may_read("*")
    (warning,) = principals.warnings
    assert f"lte token convert {path}" in warning
    path.write_text(token_file.converted(path))
    assert token_file.read(path) == Principals(principals.by_token)
    with pytest.raises(Refused, match="new form already"):
        token_file.converted(path)


def test_adding_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    for name in ("one", "two"):
        principal = Principal(name, frozenset({Role.ASKER}), ("default",))
        token_file.add_entry(path, entry_line(principal, {"sha256": token_hash(name).hex()}))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [who.name for who in token_file.read(path).all] == ["one", "two"]
    before = path.read_text()
    with pytest.raises(Refused, match="an entry two already"):
        token_file.add_entry(path, entry_line(principal, {"sha256": HASH}))
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.toml"]
    old = written(tmp_path, TOKEN)
    with pytest.raises(Refused, match="lte token convert"):
        token_file.add_entry(old, "three = 3")
    with pytest.raises(BadRequest, match="bot: read"):
        token_file.check_entry(f'bot = {{ role = "asker", read = ["a*b"], sha256 = "{HASH}" }}')


@pytest.mark.parametrize("header", ["Bearer x", "bearer  x ", "BEARER x"])
def test_the_header(header: str) -> None:
    assert token_file.token_of(header) == "x"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", TOKEN, "Basic eDp4"])
def test_another_header_is_no_token(header: str) -> None:
    with pytest.raises(Unauthenticated, match="Bearer TOKEN"):
        token_file.token_of(header)
