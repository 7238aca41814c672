"""The token of a development stack, and the principals beside it."""

from __future__ import annotations

import stat
from pathlib import Path

from daemon.rpc import token_file
from daemon.rpc.access import Role, unlimited
from ops import up_token


def test_what_was_added_to_the_file_stays_and_the_own_entry_follows_the_token(tmp_path: Path) -> None:
    token, principals = tmp_path / "token", tmp_path / "principals.toml"
    up_token.make(token, principals)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    bot = token_file.new_token()
    identity = {"sha256": token_file.token_hash(bot).hex()}
    token_file.add_entry(principals, token_file.entry_line(unlimited("bot", {Role.ASKER}), identity))
    first = token.read_text("ascii").strip()
    token.unlink()
    for _ in range(2):
        up_token.make(token, principals)
    second = token.read_text("ascii").strip()
    known = token_file.read(principals)
    assert second != first
    assert {known.of_token(value, 0.0).name for value in (second, bot)} == {"lte-up", "bot"}
    assert len(known.all) == 2
