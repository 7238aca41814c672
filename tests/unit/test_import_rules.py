"""Who may import whom, read from the syntax trees; and what the quick commands must never load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kafka
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lte_runtime", "daemon", "ops")

# One vendor, one home: a module may be imported only below these paths.
HOMES: dict[str, tuple[str, ...]] = {
    # Development tools act as a stranger's clients too.
    "kafka": ("daemon/kafka/", "ops/"),
    "grpc": ("daemon/rpc/", "daemon/client.py", "daemon/gateway/daemon_calls.py", "ops/"),
    "grpc_health": ("daemon/rpc/", "daemon/client.py", "daemon/gateway/daemon_calls.py"),
    "grpc_reflection": ("daemon/rpc/",),
    "grpc_status": ("daemon/rpc/", "daemon/client.py"),
    "prometheus_client": ("daemon/metrics.py",),
    "apscheduler": ("daemon/schedule.py",),
    "structlog": ("daemon/",),
    "typer": ("daemon/cli/", "ops/"),
    "hnswlib": ("lte_runtime/index/hnsw.py",),
    "httpx2": ("lte_runtime/answer/engine/vllm/server.py",),
    "apsw": ("lte_runtime/store/writer.py", "lte_runtime/store/db.py"),
    "sqlite3": (),
    # HTTP is a process of its own: the daemon serves without these.
    "fastapi": ("daemon/gateway/",),
    "starlette": ("daemon/gateway/",),
    "uvicorn": ("daemon/gateway/",),
    "mcp": ("daemon/gateway/",),
    # The page's templates, and what chat templates of tokenizers raise.
    "jinja2": ("daemon/gateway/page/rendering.py", "lte_runtime/answer/turns.py"),
    # Browsers are for tests and pictures alone.
    "playwright": ("ops/demo/page_picture.py",),
    "peft": (
        "lte_runtime/answer/engine/",
        "lte_runtime/align/job/train.py",
        "ops/",
    ),
    "fsspec": ("lte_runtime/align/shared_store.py",),
    "openvino": ("lte_runtime/answer/encoder/",),
    "pydantic_settings": ("daemon/config.py", "daemon/settings.py"),
    # Comparisons are development dependencies: the product must not need them.
    "chromadb": ("ops/bench/",),
    "sentence_transformers": ("ops/bench/",),
}
# Other modules of kafka-python have no promise to stay, nor have names with an underscore.
KAFKA_INTERNALS = "daemon/kafka/client_internals/"
KAFKA_PUBLIC = {"kafka.errors", "kafka.structs", "kafka.admin", *(f"kafka.{name}" for name in kafka.__all__)}
# Whole areas that run without these vendors: the method knows no transport, the recipe runs on a GPU host.
WITHOUT: dict[str, tuple[str, ...]] = {
    "lte_runtime/": ("kafka", "grpc", "prometheus_client", "apscheduler", "daemon", "ops"),
    "lte_runtime/align/": ("hnswlib", "httpx2", "kafka", "grpc"),
    "daemon/": ("ops",),
}
# From low to high: a room imports from rooms before it, and from itself.
LAYERS = (
    ("errors", "types", "progress", "redact", "templates"),
    ("disk", "places", "private_files", "scoring"),
    ("locks", "names", "sealed"),
    ("facts",),
    ("store", "index"),
    ("memory", "drift"),
    ("answer",),
    ("align",),
    ("embedded",),
    ("models",),
)
# Pure decisions: no clock, file, thread or log.
PURE = (
    "daemon/gateway/page/views/",
    "lte_runtime/facts/keys.py",
    "lte_runtime/facts/name_owners.py",
    "lte_runtime/facts/policy.py",
    "lte_runtime/facts/reasons.py",
    "lte_runtime/names/normalise.py",
    "lte_runtime/names/mention.py",
    "lte_runtime/names/parts.py",
    "lte_runtime/names/prompts.py",
    "lte_runtime/names/reading.py",
    "lte_runtime/names/tokens.py",
    "lte_runtime/names/trigrams.py",
    "lte_runtime/drift/",
    "lte_runtime/scoring.py",
    "lte_runtime/answer/chain.py",
    "lte_runtime/answer/fidelity.py",
    "lte_runtime/answer/engine/vllm/greedy_answers.py",
    "lte_runtime/answer/follow_up.py",
    "lte_runtime/answer/name_claims.py",
    "lte_runtime/answer/prompt.py",
    "lte_runtime/answer/scope/",
    "lte_runtime/answer/turns.py",
    "lte_runtime/align/data/",
    "lte_runtime/align/material.py",
    "lte_runtime/align/presets.py",
    "lte_runtime/align/promotion.py",
    "lte_runtime/align/runs.py",
    "lte_runtime/align/watch.py",
    "daemon/rpc/access.py",
    "ops/lab/evals/tally.py",
    "ops/lab/evals/unseen_facts.py",
)
IMPURE = ("time", "datetime", "threading", "logging", "structlog", "os", "socket", "subprocess")


def _modules() -> list[Path]:
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in paths if "daemon/rpc/gen" not in path.as_posix()]


def _imports(path: Path) -> Iterator[str]:
    """Absolute module names that a file imports anywhere, lazily too; type-only imports do not count."""
    tree = ast.parse(path.read_text("utf-8"), str(path))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _offences(forbidden: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        f"{_relative(path)} imports {name}"
        for path in _modules()
        for area, vendors in forbidden.items()
        if _relative(path).startswith(area)
        for name in _imports(path)
        if name.partition(".")[0] in vendors
    ]


def test_there_is_something_to_check() -> None:
    assert len(_modules()) > 20


def test_areas_do_not_import_what_they_must_not_know() -> None:
    assert _offences(WITHOUT) == []


def test_rooms_of_the_runtime_import_downwards_only() -> None:
    level = {f"lte_runtime.{room}": number for number, rooms in enumerate(LAYERS) for room in rooms}
    offences = [
        f"{_relative(path)} imports {name}"
        for path in _modules()
        if _relative(path).startswith("lte_runtime/") and path.name != "__init__.py"
        for name in _imports(path)
        if (target := ".".join(name.split(".")[:2])) in level
        and (room := ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])) != target
        and level[target] >= level[room]
    ]
    assert offences == []


def test_one_vendor_one_home() -> None:
    offences = [
        f"{_relative(path)} imports {name}"
        for path in _modules()
        for name in {name.partition(".")[0] for name in _imports(path)}
        if name in HOMES and not _relative(path).startswith(HOMES[name] or "nowhere")
    ]
    assert offences == []


def _private_parts_of_others(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner = node.value
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls", "os")):
                yield ast.unparse(node)


def _uses_kafka(path: Path) -> bool:
    return any(name == "kafka" or name.startswith(("kafka.", "daemon.kafka")) for name in _imports(path))


def test_private_parts_of_the_kafka_client_are_used_in_one_place() -> None:
    users = [path for path in _modules() if _uses_kafka(path)]
    outside = [path for path in users if not _relative(path).startswith(KAFKA_INTERNALS)]
    assert len(users) - len(outside) > 3
    assert [
        f"{_relative(path)} imports {name}"
        for path in outside
        for name in _imports(path)
        if name.startswith("kafka.") and not {name, name.rpartition(".")[0]} & KAFKA_PUBLIC
    ] == []
    assert [
        f"{_relative(path)} uses {used}" for path in outside for used in _private_parts_of_others(path)
    ] == []


def test_decisions_are_pure() -> None:
    offences = [
        f"{_relative(path)} imports {name}"
        for path in _modules()
        if _relative(path).startswith(PURE)
        for name in _imports(path)
        if name.partition(".")[0] in IMPURE
    ]
    assert offences == []


def test_parts_meet_in_the_build_alone() -> None:
    """Below it a part takes values: it knows neither the settings' builders nor who else was built."""
    allowed = ("daemon/build.py", "daemon/process.py", "daemon/parts/", "daemon/cli/", "ops/")
    offences = [
        f"{_relative(path)} imports {name}"
        for path in _modules()
        if not _relative(path).startswith(allowed)
        for name in _imports(path)
        if name.startswith(("daemon.parts", "daemon.build", "daemon.process"))
    ]
    assert offences == []


def test_relative_imports_are_not_used() -> None:
    relative = [
        _relative(path)
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


HEAVY = (
    "torch",
    "transformers",
    "peft",
    "openvino",
    "hnswlib",
    "numpy",
    "apsw",
    "pydantic",
    "pydantic_settings",
)
QUICK = {
    "--help": ["--help"],
    "ask": ["ask", "Who leads Acme?", "--socket", "nowhere.sock"],
    "publish --help": ["publish", "--help"],
}


@pytest.mark.parametrize("arguments", QUICK.values(), ids=QUICK)
def test_quick_commands_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['lte', *{arguments!r}]\n"
        "from daemon.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["LOADED []"], done.stderr


def test_the_runtime_is_importable_without_the_daemon() -> None:
    script = (
        "import sys\n"
        "import lte_runtime.types, lte_runtime.errors\n"
        "assert not [n for n in sys.modules if n.partition('.')[0] in ('daemon', 'ops', 'kafka', 'grpc')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def _reached(start: str) -> set[str]:
    """Names of all modules that `start` imports, however far away and however lazily."""
    names: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        stem = ROOT / name.replace(".", "/")
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.exists() and name.partition(".")[0] in PACKAGES:
                waiting += _imports(path)
    return names


@pytest.mark.parametrize("start", ["lte_runtime.align.job.__main__", "lte_runtime.align.job.work"])
def test_an_alignment_job_runs_without_the_daemons_libraries(start: str) -> None:
    """It runs alone on a GPU host, where none of them is installed."""
    reached = {name.partition(".")[0] for name in _reached(start)}
    assert {"torch", "transformers"} <= reached
    assert not reached & {"hnswlib", "kafka", "grpc", "apsw", "prometheus_client", "apscheduler", "daemon"}
