"""A 7B model on one GPU: alignment, answers, and answers while alignment runs beside them.

The model has the shape of Qwen2.5-7B and random weights, so that nothing is fetched. Only useful work is
counted: 4 FLOPs for each weight of the blocks and real token (forward, and backward through activations; the
weights are frozen), and for each weight of the head and answer token. Padding, activations computed again,
attention and LoRA itself (about 1 % each) are not counted. The peak is an 8192^3 product in the same run.
"""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from lte_runtime.align.data.dataset import IGNORED, EncodedRow
from lte_runtime.align.job import train
from lte_runtime.align.presets import preset
from lte_runtime.align.settings import TrainingSettings
from lte_runtime.answer.engine import greedy
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.torch_session import TorchSession
from lte_runtime.errors import Refused
from lte_runtime.types import GenerateRequest
from ops.bench.result import SEED, BenchResult, machine, percentile, today

BAR = "useful FLOPs >= 40 % of the bf16 peak"
DATASHEET_TFLOPS = 989.0
"""H100 SXM and H200, bf16, dense."""
PROMPT, NEW, MOST = 120, 24, 8
WARM = 2
"""Updates that are run and not timed."""
Progress = Callable[[str], None]

SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
        "vocab_size": 152_064,
    },
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "vocab_size": 512,
    },
}


@dataclass(frozen=True, slots=True)
class Aligned:
    """What an alignment did: rates in tokens a second, `tflops` useful ones, memory in GB."""

    updates: int
    real: float
    padded: float
    tflops: float
    memory: float
    budget: int

    def __str__(self) -> str:
        return (
            f"{self.real:,.0f} real tokens/s, {self.padded:,.0f} with padding, "
            f"{self.tflops:.1f} useful TFLOP/s, {self.memory:.1f} GB, "
            f"budget {self.budget}, {self.updates} updates timed"
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """Answer times in ms, and answers a second."""

    rate: float
    p50: float
    p99: float
    n: int

    @classmethod
    def of(cls, spans: Sequence[tuple[int, float]]) -> Answered:
        """From (rows, seconds) of each batch; every row waits for its batch."""
        times = [seconds * 1e3 for rows, seconds in spans for _ in range(rows)]
        rate = len(times) / sum(seconds for _, seconds in spans)
        return cls(rate, percentile(times, 0.5), percentile(times, 0.99), len(times))

    def __str__(self) -> str:
        return f"{self.rate:.1f} answers/s, p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms (n={self.n})"


def run(quick: bool, progress: Progress, shape: str = "7b", seconds: float = 20.0) -> BenchResult:
    """`ours` and `peer`: real tokens a second in alignment, with the preset and with peft's own layers and
    recomputation. Each of the phases has at most `seconds` (`quick`: a quarter of them)."""
    if shape == "7b" and not torch.cuda.is_available():
        raise Refused("shape 7b needs a GPU (CUDA); --shape tiny runs on the CPU")
    seconds = seconds / 4 if quick else seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = _peak(device)
    progress(f"{name}: 8192^3 product at {peak:.0f} TFLOP/s")
    began = time.perf_counter()
    model = _model(shape, device)
    base = _twin(model)
    settings = _settings(shape)
    adapted = train.with_adapter(model, settings)
    progress(f"model made in {time.perf_counter() - began:.1f} s")

    ours = _measure_alignment(adapted, settings, seconds)
    share, datasheet = ours.tflops / peak, ours.tflops / DATASHEET_TFLOPS
    progress(f"alignment: {ours}; {share:.1%} of the measured peak, {datasheet:.1%} of the datasheet's")
    batches = _measure_answers(base, (MOST,), seconds / 2)
    progress(f"answers, batches of {MOST}: {batches}")
    alone = _measure_answers(base, (1,), seconds / 2)
    progress(f"answers, one at a time: {alone}")
    sizes = tuple(Random(SEED).choices(range(1, MOST + 1), k=50))
    idle = _measure_answers(base, sizes, seconds / 2)
    progress(f"answers, batches of 1-{MOST}, idle: {idle}")
    beside, during = _cycle(adapted, base, replace(settings, halvings=0, budget=ours.budget), sizes, seconds)
    progress(f"answers beside alignment: {beside}")
    progress(f"alignment beside answers: {during}")
    peer = _measure_alignment(
        adapted,
        replace(settings, fused=False, recompute=True, budget=_recomputing_budget(shape)),
        seconds / 2,
    )
    progress(f"alignment with peft's layers and recomputation: {peer}")
    return BenchResult(
        name="gpu",
        ours=ours.real,
        peer=peer.real,
        ratio=ours.real / peer.real,
        unit="real tokens per second, alignment",
        n=ours.updates,
        bar=BAR,
        machine=f"{name}, {machine()}",
        date=today(),
        extra={
            "shape": shape,
            "torch": torch.__version__,
            "padded_per_s": ours.padded,
            "useful_tflops": ours.tflops,
            "measured_peak_tflops": peak,
            "share_of_measured_peak": share,
            "share_of_datasheet": datasheet,
            "peak_memory_gb": ours.memory,
            "budget": ours.budget,
            "peer_useful_tflops": peer.tflops,
            "peer_memory_gb": peer.memory,
            f"answers_per_s_batch_{MOST}": batches.rate,
            f"batch_{MOST}_p50_ms": batches.p50,
            "single_p50_ms": alone.p50,
            "idle_answers_per_s": idle.rate,
            "idle_p50_ms": idle.p50,
            "idle_p99_ms": idle.p99,
            "beside_answers_per_s": beside.rate,
            "beside_p50_ms": beside.p50,
            "beside_p99_ms": beside.p99,
            "beside_n": beside.n,
            "alignment_beside_answers_per_s": during.real,
            "alignment_beside_answers_tflops": during.tflops,
        },
    )


def _peak(device: torch.device) -> float:
    """TFLOP/s of a square bf16 product of random numbers, the best of five turns."""
    size, turns = (8192, 10) if device.type == "cuda" else (256, 1)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    times = []
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        for _ in range(turns):
            torch.mm(a, b)
        _wait(device)
        times.append((time.perf_counter() - began) / turns)
    return 2 * size**3 / min(times) / 1e12


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _model(shape: str, device: torch.device) -> Any:
    """Random weights, drawn on the device."""
    torch.manual_seed(SEED)
    config = Qwen2Config(
        **SHAPES[shape],
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)
    return model.requires_grad_(False).eval()


def _twin(model: Any) -> Any:
    """Another model on the same weights: it stays the base when the layers of the first are wrapped."""
    with torch.device("meta"):
        twin = Qwen2ForCausalLM(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.model.rotary_emb = model.model.rotary_emb
    return twin.requires_grad_(False).eval()


def _settings(shape: str) -> TrainingSettings:
    chosen = preset("7b-1xh200").settings
    return chosen if shape == "7b" else replace(chosen, batch=4, budget=512, rank=4, alpha=8)


def _recomputing_budget(shape: str) -> int:
    """Padded tokens at a time that the preset had with recomputation."""
    return 16_384 if shape == "7b" else 1024


def _rows(vocabulary: int, count: int) -> list[EncodedRow]:
    """Prompts and answers of random tokens: 150 to 250 in a row, 4 to 24 of them the answer."""
    random = Random(SEED)
    rows = []
    for _ in range(count):
        ids = tuple(random.choices(range(1, vocabulary), k=random.randint(150, 250)))
        prompt = len(ids) - random.randint(4, 24)
        rows.append(EncodedRow(ids, (*([IGNORED] * prompt), *ids[prompt:])))
    return rows


def _measure_alignment(adapted: Any, settings: TrainingSettings, seconds: float) -> Aligned:
    """Trains for `seconds`; with half the tokens at a time where memory runs out, as a job does."""
    for halvings in range(4):
        try:
            return _measure_training(adapted, replace(settings, halvings=halvings), seconds)
        except torch.OutOfMemoryError:
            adapted.zero_grad()
        gc.collect()
        torch.cuda.empty_cache()
    raise Refused("memory runs out with an eighth of the tokens")


def _measure_training(adapted: Any, settings: TrainingSettings, seconds: float) -> Aligned:
    model = adapted.get_base_model()
    device = next(model.parameters()).device
    rows = _rows(model.config.vocab_size, settings.batch * 40)
    settings = replace(settings, epochs=20, every=1 << 30)
    marks: list[float] = []
    until = time.perf_counter() + seconds

    def enough() -> bool:
        return time.perf_counter() > until and len(marks) > WARM

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as name:
        train.train(
            adapted,
            rows,
            settings,
            folder=Path(name),
            watch=lambda _: marks.append(time.perf_counter()),
            stopping=enough,
        )
    adapted.zero_grad()
    times = [end - begin for begin, end in pairwise(marks)][WARM - 1 :]
    plan = list(zip(train.planned(rows, settings), marks, strict=False))[WARM : WARM + len(times)]
    groups = [group for update, _ in plan for group in update]
    real = sum(len(row.input_ids) for group in groups for row in group)
    padded = sum(len(group) * max(len(row.input_ids) for row in group) for group in groups)
    answers = sum(row.answer_length for group in groups for row in group)
    flops = 4 * (_block_weights(model) * real + model.lm_head.weight.numel() * answers)
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    took = sum(times)
    budget = settings.budget >> settings.halvings
    return Aligned(len(times), real / took, padded / took, flops / took / 1e12, memory, budget)


def _block_weights(model: Any) -> int:
    """Weights of the blocks' linear layers without LoRA's."""
    return sum(
        value.numel()
        for name, value in model.model.layers.named_parameters()
        if value.ndim == 2 and "lora_" not in name
    )


def _measure_answers(
    base: Any, sizes: Sequence[int], seconds: float, over: Callable[[], bool] = lambda: False
) -> Answered:
    """Batches of these sizes one after the other, by the engine's own loop, for `seconds` or until `over`."""
    random = Random(SEED)
    _ask(base, random, max(sizes))
    spans: list[tuple[int, float]] = []
    until = time.perf_counter() + seconds
    while not spans or (time.perf_counter() < until and not over()):
        size = sizes[len(spans) % len(sizes)]
        spans.append((size, _ask(base, random, size)))
    return Answered.of(spans)


def _ask(base: Any, random: Random, size: int) -> float:
    """Seconds until a batch of `size` prompts of about `PROMPT` tokens has `NEW` more each."""
    lengths = [PROMPT + random.randint(-10, 10) for _ in range(size)]
    prompts = [tuple(random.choices(range(1, base.config.vocab_size), k=length)) for length in lengths]
    rows = [GenerationRow(GenerateRequest(prompt, False, NEW), lambda _: "", ()) for prompt in prompts]
    began = time.perf_counter()
    greedy.generate(TorchSession(base, base.config, base.device), rows, lambda _: None)
    return time.perf_counter() - began


def _cycle(
    adapted: Any, base: Any, settings: TrainingSettings, sizes: Sequence[int], seconds: float
) -> tuple[Answered, Aligned]:
    """Answers of one thread while this one trains on the same weights; both of the time that they share."""
    over = threading.Event()
    measurements: list[Answered] = []

    def answer() -> None:
        with _preferred(base.device):
            measurements.append(_measure_answers(base, sizes, seconds, over.is_set))

    thread = threading.Thread(target=answer, name="answers")
    thread.start()
    try:
        aligned = _measure_alignment(adapted, settings, seconds)
    finally:
        over.set()
        thread.join()
    return measurements[0], aligned


def _preferred(device: torch.device) -> AbstractContextManager[Any]:
    """A stream of its own with priority: on the common one an answer's kernels queue behind training's."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(priority=-1))  # type: ignore[no-untyped-call]
