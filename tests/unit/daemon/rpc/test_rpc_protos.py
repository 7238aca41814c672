"""The protos: rules of buf's STANDARD set that fit, and generated code that is what the protos give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.rpc.gen.lte.v1 import admin_service_pb2, answer_service_pb2, common_pb2, edit_service_pb2
from daemon.rpc.generate import GENERATED, PROTOS, generate

FILES = [
    module.DESCRIPTOR for module in (common_pb2, answer_service_pb2, edit_service_pb2, admin_service_pb2)
]
SNAKE, PASCAL, UPPER = (
    re.compile(r"[a-z][a-z0-9_]*"),
    re.compile(r"([A-Z][a-z0-9]*)+"),
    re.compile(r"[A-Z0-9_]+"),
)


def upper_snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def test_files_and_packages() -> None:
    assert {str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")} == {f.name for f in FILES}
    for file in FILES:
        assert file.package == "lte.v1"
        assert Path(file.name).parent == Path(*file.package.split("."))
        assert SNAKE.fullmatch(Path(file.name).stem)


def test_messages_and_fields() -> None:
    for message in (message for file in FILES for message in file.message_types_by_name.values()):
        assert PASCAL.fullmatch(message.name)
        for name in (*(field.name for field in message.fields), *(oneof.name for oneof in message.oneofs)):
            assert SNAKE.fullmatch(name.removeprefix("_")), f"{message.name}.{name}"


def test_enums() -> None:
    for enum in (enum for file in FILES for enum in file.enum_types_by_name.values()):
        prefix = upper_snake(enum.name)
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(UPPER.fullmatch(value.name) and value.name.startswith(prefix) for value in enum.values)


def test_services_and_methods() -> None:
    used: list[str] = []
    for service in (service for file in FILES for service in file.services_by_name.values()):
        assert service.name.endswith("Service")
        for method in service.methods:
            assert PASCAL.fullmatch(method.name)
            assert method.input_type.name == f"{method.name}Request"
            assert method.output_type.name == f"{method.name}Response"
            used += [method.input_type.name, method.output_type.name]
    assert len(used) == len(set(used))


def test_every_service_and_method_of_more_than_one_word_is_commented() -> None:
    for path in PROTOS.rglob("*_service.proto"):
        assert re.search(r"^// .+\nservice ", path.read_text(), re.M), path.name


def test_the_documentation_names_every_method() -> None:
    text = (Path(__file__).parents[4] / "docs" / "api.md").read_text()
    methods = [m.name for f in FILES for s in f.services_by_name.values() for m in s.methods]
    assert [name for name in methods if f"`{name}`" not in text] == []


@pytest.mark.slow
def test_generated_code_is_committed(tmp_path: Path) -> None:
    generate(tmp_path / "gen")
    assert tree(tmp_path / "gen") == tree(GENERATED), "run `make proto`"


def tree(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.suffix in (".py", ".pyi")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_the_client_is_light() -> None:
    heavy = "torch transformers numpy pydantic hnswlib kafka openvino rich grpc google.protobuf"
    check = (
        f"import sys, daemon.client; sys.exit(', '.join(m for m in {heavy.split()} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_call_brings_no_model_library() -> None:
    heavy = "torch transformers numpy pydantic hnswlib kafka openvino"
    check = (
        "import sys\nfrom daemon.client import Client\n"
        "assert not Client('/nowhere/a.sock').is_serving(timeout_s=0.5)\n"
        "try:\n    Client('/nowhere/a.sock').answer('What?', timeout_s=0.5)\nexcept Exception:\n    pass\n"
        f"sys.exit(', '.join(m for m in {heavy.split()} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
