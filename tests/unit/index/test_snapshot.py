"""Snapshots: appear whole or not at all, and damage of any kind is never taken for good."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lte_runtime.index import snapshot

SEED = 20231


def fill(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.bin").write_bytes(content)
        (folder / "part").mkdir()
        (folder / "part" / "b.bin").write_bytes(content[::-1])

    return write


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, fill(b"one two"), {"offset": 7})
    read = snapshot.read_verified(tmp_path)
    assert read == written
    assert read.about == {"offset": 7}
    assert (read.path / "part" / "b.bin").read_bytes() == b"owt eno"
    assert read.size == 14


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert snapshot.read_verified(tmp_path / "absent") is None
    assert snapshot.read_verified(tmp_path) is None


def test_newest_is_taken_and_old_ones_go(tmp_path: Path) -> None:
    for turn in range(4):
        snapshot.write(tmp_path, fill(b"x"), {"turn": turn}, keep=2)
    newest = snapshot.read_verified(tmp_path)
    assert newest is not None
    assert newest.about == {"turn": 3}
    assert names(tmp_path) == ["snapshot-000000000003", "snapshot-000000000004"]


def test_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    snapshot.write(tmp_path, fill(b"good"), {})

    def full_disk(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        snapshot.write(tmp_path, full_disk, {})
    assert names(tmp_path) == ["snapshot-000000000001"]


def test_half_made_one_of_a_crash_is_swept(tmp_path: Path) -> None:
    (tmp_path / "tmp-000000000009").mkdir(parents=True)
    assert snapshot.read_verified(tmp_path) is None
    assert names(tmp_path) == []


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(len(path.read_bytes()))])


def zero(path: Path, _rng: random.Random) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def delete(path: Path, _rng: random.Random) -> None:
    path.unlink()


def link(path: Path, _rng: random.Random) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("harm", [flip, truncate, zero, delete, link])
@pytest.mark.parametrize("name", ["a.bin", "part/b.bin", "manifest.json"])
def test_damage_falls_back_to_the_older_one(
    tmp_path: Path, harm: Callable[[Path, random.Random], None], name: str
) -> None:
    for turn in range(20):
        directory = tmp_path / str(turn)
        snapshot.write(directory, fill(b"old content"), {"turn": 0})
        newer = snapshot.write(directory, fill(b"new content"), {"turn": 1})
        harm(newer.path / name, random.Random(SEED + turn))
        newest = snapshot.read_verified(directory)
        assert newest is not None
        assert newest.about == {"turn": 0}, f"turn {turn}"
        assert names(directory) == ["damaged-000000000002", "snapshot-000000000001"]


def test_two_files_exchanged_are_seen(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, fill(b"abc"), {})
    first, second = written.path / "a.bin", written.path / "part" / "b.bin"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert snapshot.read_verified(tmp_path) is None


def test_a_file_too_many_is_seen(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, fill(b"abc"), {})
    (written.path / "extra").write_bytes(b"")
    assert snapshot.read_verified(tmp_path) is None


def test_at_most_three_damaged_ones_are_kept(tmp_path: Path) -> None:
    for turn in range(5):
        written = snapshot.write(tmp_path, fill(b"abc"), {"turn": turn}, keep=9)
        (written.path / "a.bin").write_bytes(b"zzz")
        assert snapshot.read_verified(tmp_path) is None
    assert names(tmp_path) == [f"damaged-{number:012d}" for number in (3, 4, 5)]


def test_numbers_go_on_after_damage(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, fill(b"abc"), {})
    snapshot.put_aside(written.path)
    assert snapshot.write(tmp_path, fill(b"abc"), {}).path.name == "snapshot-000000000002"


def test_remove_all(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, fill(b"secret"), {})
    snapshot.put_aside(written.path)
    snapshot.write(tmp_path, fill(b"secret"), {})
    assert snapshot.remove_all(tmp_path) == 2
    assert names(tmp_path) == []
