from __future__ import annotations

from pathlib import Path

from ops.lab.evals import lines


def test_a_line_cut_off_is_skipped_and_the_next_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.jsonl"
    assert lines.read(path) == []
    lines.append(path, {"a": "é"})
    lines.append(path, {"b": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert lines.read(path) == [{"a": "é"}]
    lines.append(path, {"c": 3})
    assert lines.read(path) == [{"a": "é"}, {"c": 3}]
