"""The registry: what comes in whole, what is refused, what stays, and what a damaged copy does."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from stub_adapters import save_adapter

from lte_runtime.align.registry import Registry, tainted
from lte_runtime.align.shared_store import RECORD, AdapterStore
from lte_runtime.answer.engine.files import MANIFEST, WEIGHTS, read_tensors, verify_adapter
from lte_runtime.answer.engine.stub import STUB_FINGERPRINT
from lte_runtime.errors import BadRequest, Damaged, LteError, NotFound, Refused, Retry
from lte_runtime.types import AdapterRef

VERDICT = {"promote": True, "gain": 0.12}


def check(directory: Path) -> AdapterRef:
    found = verify_adapter(directory, STUB_FINGERPRINT)
    read_tensors(found)
    return found.ref


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    clock = iter(range(1000, 2000))
    return Registry(tmp_path / "adapters", check, reserved={"align-000001"}, now_ms=lambda: next(clock))


def added(registry: Registry, tmp_path: Path, *numbers: int) -> list[AdapterRef]:
    return [registry.add(save_adapter(tmp_path / f"made-{n}", n), VERDICT) for n in numbers]


def test_an_adapter_comes_in_by_its_content_with_its_verdict(registry: Registry, tmp_path: Path) -> None:
    source = save_adapter(tmp_path / "made", 2, edit_ids=("e1", "e2"))
    ref = registry.add(source, VERDICT)
    assert ref == check(source)
    entry = registry.verify("align-000002")
    assert (entry.ref, entry.verdict, entry.edit_ids) == (ref, VERDICT, ("e1", "e2"))
    assert entry.directory == registry.root / ref.sha256
    assert sorted(path.name for path in registry.root.iterdir()) == [ref.sha256]
    assert (entry.directory / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()
    with pytest.raises(NotFound):
        registry.get("align-000009")


def test_the_same_content_is_one_adapter(registry: Registry, tmp_path: Path) -> None:
    first = registry.add(save_adapter(tmp_path / "one", 2), VERDICT)
    twin = save_adapter(tmp_path / "two", 2, id="align-000003")
    assert registry.add(twin, {"promote": False}) == first
    assert [entry.verdict for entry in registry.entries()] == [VERDICT]


def test_two_processes_that_add_the_same_make_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_adapter(tmp_path / "made", 2)
    other = Registry(registry.root, check)
    real = registry._existing

    def known_too_early(ref: AdapterRef) -> AdapterRef | None:
        found = real(ref)
        other.add(source, {"by": "the quicker one"})
        return found

    monkeypatch.setattr(registry, "_existing", known_too_early)
    assert registry.add(source, VERDICT) == check(source)
    assert [entry.verdict for entry in registry.entries()] == [{"by": "the quicker one"}]
    assert registry.sweep(older_than_s=0) == 0


def test_names_are_never_used_again(registry: Registry, tmp_path: Path) -> None:
    assert registry.next_id() == "align-000002"
    added(registry, tmp_path, 2, 3)
    with pytest.raises(Refused, match="taken"):
        registry.add(save_adapter(tmp_path / "other", 9, id="align-000003"), VERDICT)
    with pytest.raises(Refused, match="taken"):
        registry.add(save_adapter(tmp_path / "shipped", 1), VERDICT)
    for name in ("align-2", "../align-000004", "", "align-000004\n"):
        with pytest.raises(LteError):
            registry.add(save_adapter(tmp_path / f"named-{len(name)}", 8, id=name), VERDICT)
    assert registry.prune(0, referenced=()) == ["align-000003", "align-000002"]
    assert registry.next_id() == "align-000004"
    with pytest.raises(Refused, match="taken"):
        registry.add(tmp_path / "made-3", VERDICT)


def test_retention_removes_the_oldest_and_nothing_referenced(registry: Registry, tmp_path: Path) -> None:
    added(registry, tmp_path, 2, 3, 4, 5, 6)
    assert registry.prune(2, referenced={"align-000003"}) == ["align-000004", "align-000002"]
    assert [entry.ref.id for entry in registry.entries()] == ["align-000003", "align-000005", "align-000006"]
    kept = json.loads((registry.root / "removed" / "align-000002.json").read_text())
    assert kept["verdict"] == VERDICT
    assert registry.prune(2, referenced={"align-000003"}) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "weights flipped": lambda place: flip(place / WEIGHTS),
    "weights gone": lambda place: (place / WEIGHTS).unlink(),
    "configuration flipped": lambda place: flip(place / "adapter_config.json"),
    "manifest flipped": lambda place: flip(place / MANIFEST),
    "manifest exchanged": lambda place: exchange(place),
    "record flipped": lambda place: flip(place / RECORD),
    "record gone": lambda place: (place / RECORD).unlink(),
    "record empty": lambda place: (place / RECORD).write_bytes(b""),
    "verdict changed": lambda place: reword(place / RECORD),
}


def exchange(place: Path) -> None:
    manifest = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps({**manifest, "edit_ids": ["another"]}))


def reword(record: Path) -> None:
    record.write_text(record.read_text().replace("0.12", "0.92"))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_adapter_is_told_and_can_be_added_again(
    kind: str, registry: Registry, tmp_path: Path
) -> None:
    (ref,) = added(registry, tmp_path, 2)
    DAMAGE[kind](registry.root / ref.sha256)
    with pytest.raises((Damaged, NotFound)):
        registry.verify(ref.id)
    assert registry.add(tmp_path / "made-2", VERDICT) == ref
    assert registry.verify(ref.id).ref == ref


def test_a_copy_half_made_is_swept_and_never_listed(registry: Registry, tmp_path: Path) -> None:
    added(registry, tmp_path, 2)
    left = registry.root / "tmp-0123"
    left.mkdir()
    (left / MANIFEST).write_text("{}")
    assert [entry.ref.id for entry in registry.entries()] == ["align-000002"]
    assert registry.sweep() == 0
    assert registry.sweep(older_than_s=0) == 1
    assert not left.exists()


def test_taint_names_what_no_longer_stands() -> None:
    states = {"a": "current", "b": "retracted", "c": "superseded", "d": "expired", "e": "erased", "f": ""}
    found = tainted(states, lambda name: states[name])
    assert found == {"b": "retracted", "c": "superseded", "e": "erased"}


# A store on an fsspec URL, shared by machines that have a copy each.


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    place = f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/store"
    yield place
    fsspec.filesystem("memory").store.clear()


def machine(tmp_path: Path, name: str, url: str) -> Registry:
    return Registry(tmp_path / name, check, store=AdapterStore(url))


def there(url: str, ref: AdapterRef, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = fsspec.core.url_to_fs(url)
    return fs, f"{root}/{ref.id}.{ref.sha256}/{name}"


def test_another_machine_brings_an_adapter_from_the_store(tmp_path: Path, url: str) -> None:
    one, other = (machine(tmp_path, name, url) for name in ("one", "other"))
    source = save_adapter(tmp_path / "made", 2, edit_ids=("e1",))
    ref = one.add(source, VERDICT)
    assert other.entries() == []
    assert other.next_id() == "align-000003", "the name is taken, though not here"
    entry = other.verify("align-000002")
    assert (entry.ref, entry.verdict, entry.edit_ids) == (ref, VERDICT, ("e1",))
    assert (entry.directory / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()
    assert [each.name for each in other.root.iterdir()] == [ref.sha256]
    with pytest.raises(NotFound, match="align-000009"):
        other.get("align-000009")


def test_a_name_of_the_store_stands_for_one_content(tmp_path: Path, url: str) -> None:
    one, other = (machine(tmp_path, name, url) for name in ("one", "other"))
    first = one.add(save_adapter(tmp_path / "made", 2), VERDICT)
    one.add(save_adapter(tmp_path / "again", 2), {"promote": False})
    with pytest.raises(Refused, match="taken"):
        other.add(save_adapter(tmp_path / "another", 9, id="align-000002"), VERDICT)
    assert AdapterStore(url).refs() == [first]
    assert machine(tmp_path, "third", url).get(first.id).verdict == VERDICT, "the first record stays"


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST, RECORD])
def test_bytes_of_the_store_are_checked_before_they_are_here(tmp_path: Path, url: str, file: str) -> None:
    ref = machine(tmp_path, "one", url).add(save_adapter(tmp_path / "made", 2), VERDICT)
    fs, path = there(url, ref, file)
    data = bytearray(fs.cat_file(path))
    data[len(data) // 2] ^= 0xFF
    fs.pipe_file(path, bytes(data))
    other = machine(tmp_path, "other", url)
    with pytest.raises(Damaged):
        other.get(ref.id)
    assert list(other.root.iterdir()) == []


def test_an_adapter_that_is_still_being_written_is_not_there(tmp_path: Path, url: str) -> None:
    ref = machine(tmp_path, "one", url).add(save_adapter(tmp_path / "made", 2), VERDICT)
    fs, path = there(url, ref, RECORD)
    fs.rm_file(path)
    other = machine(tmp_path, "other", url)
    with pytest.raises(NotFound):
        other.get(ref.id)
    # Whoever was cut short adds it again.
    machine(tmp_path, "one", url).add(save_adapter(tmp_path / "again", 2), VERDICT)
    assert other.get(ref.id).ref == ref


def test_a_damaged_copy_is_replaced_from_the_store(tmp_path: Path, url: str) -> None:
    registry = machine(tmp_path, "one", url)
    ref = registry.add(save_adapter(tmp_path / "made", 2), VERDICT)
    flip(registry.root / ref.sha256 / WEIGHTS)
    assert registry.verify(ref.id).ref == ref
    assert (registry.root / f"damaged-{ref.sha256}").exists()


def test_a_store_that_fails_says_so_and_the_next_try_goes_through(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = machine(tmp_path, "one", url)
    fs, _ = fsspec.core.url_to_fs(url)

    def broken(*_: object, **__: object) -> None:
        raise TimeoutError("no route")

    with monkeypatch.context() as patched:
        patched.setattr(type(fs), "put_file", broken)
        with pytest.raises(Retry, match="no route"):
            registry.add(save_adapter(tmp_path / "made", 2), VERDICT)
    assert AdapterStore(url).refs() == []
    ref = registry.add(save_adapter(tmp_path / "again", 2), VERDICT)
    assert AdapterStore(url).refs() == [ref]


def test_a_url_that_means_nothing_is_refused() -> None:
    with pytest.raises(BadRequest, match="nowhere"):
        AdapterStore("nowhere://bucket")


def test_a_store_tells_its_url_without_credentials() -> None:
    with pytest.raises(BadRequest) as refused:
        AdapterStore("nowhere://key:hunter2@bucket/lte")
    assert "nowhere://***@bucket/lte" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("rights", [0o700, 0o755, 0o750])
def test_an_adapter_has_the_rights_of_its_registry(tmp_path: Path, rights: int) -> None:
    """Replicas that share a registry may run as different users."""
    roots = [tmp_path / "adapters", tmp_path / "store"]
    for root in roots:
        root.mkdir()
        root.chmod(rights)
    before = os.umask(0o077)
    try:
        machine(tmp_path, "adapters", f"file://{roots[1]}").add(save_adapter(tmp_path / "made", 2), VERDICT)
    finally:
        os.umask(before)
    for root in roots:
        (folder,) = root.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == rights
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {rights & 0o666}
