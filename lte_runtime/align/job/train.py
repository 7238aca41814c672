"""LoRA training of an alignment adapter on any Hugging Face causal model; the only module that knows peft.

`transformers.Trainer` keeps the loop: schedule, checkpoints, resume, early stopping, several processes. One
update is one batch of rows, computed in groups of like length of at most `budget` tokens each, so that memory
has a bound that does not depend on how long single rows are.
"""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from lte_runtime.align.data.dataset import IGNORED, EncodedRow, by_length
from lte_runtime.align.job import fused
from lte_runtime.align.settings import TrainingSettings

FINISHED = "finished"
PRECISION = "precision.txt"
"""Written last into a checkpoint: one without it was cut short and is not resumed from."""


@dataclass(frozen=True, slots=True)
class Update:
    """One finished update of `total`, and its loss."""

    number: int
    total: int
    loss: float


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How training ended: `stopped` is true when it was told to stop, `best` the best held-out loss seen."""

    updates: int
    loss: float
    stopped: bool
    best: float | None


def linear_names(model: Any) -> list[str]:
    """Names of the linear layers of the blocks: every linear weight but the vocabulary's head."""
    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    }
    return sorted(names)


def with_adapter(model: Any, settings: TrainingSettings) -> PeftModel:
    """The model with a fresh LoRA adapter on every linear layer, its own weights frozen."""
    torch.manual_seed(settings.seed)
    turned = any(type(module).__name__ == "Conv1D" for module in model.modules())
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=linear_names(model),
        fan_in_fan_out=turned,
    )
    return _wrapped(model, config)


def with_start(model: Any, folder: Path) -> PeftModel:
    """The model with the adapter of `folder` (verified before) as a start to train on."""
    from safetensors.torch import load_file

    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    config.base_model_name_or_path = None
    adapted = _wrapped(model, config)
    state = {name: value.float() for name, value in load_file(folder / "adapter_model.safetensors").items()}
    set_peft_model_state_dict(adapted, state)
    return adapted


def _wrapped(model: Any, config: LoraConfig) -> PeftModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # chance in the base's layers would make a resumed run another run
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for an attribute under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def train(
    adapted: PeftModel,
    rows: Sequence[EncodedRow],
    settings: TrainingSettings,
    *,
    folder: Path,
    held: Sequence[EncodedRow] = (),
    watch: Callable[[Update], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    """Trains on `rows`, from the last finished checkpoint under `folder` if there is one.

    Equal arguments give equal adapters, however often training was cut short between. `watch` hears of each
    update; when `stopping` says so, a checkpoint is written and training ends. Where memory runs out it
    raises what torch raises: `out_of_memory` tells.
    """
    transformers_logging.set_verbosity_error()
    order = _Order(rows, settings)
    total = -(-len(order) // settings.batch)
    watcher = _Watcher(watch, stopping, total)
    trainer = _AlignTrainer(
        adapted,
        settings,
        held,
        args=_arguments(folder, settings, bool(held), _device(adapted)),
        train_dataset=order,
        eval_dataset=held or None,
        data_collator=_together,
        optimizers=_optimizer(adapted, settings, total),
        callbacks=[watcher, *([EarlyStoppingCallback(settings.patience)] if held else [])],
    )
    trainer.remove_callback(PrinterCallback)
    with _layers(adapted, settings):
        done = trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    best = trainer.state.best_metric
    return TrainingOutcome(done.global_step, losses[-1] if losses else float("nan"), watcher.stopped, best)


def planned(rows: Sequence[EncodedRow], settings: TrainingSettings) -> Iterator[list[list[EncodedRow]]]:
    """The groups of each update, as one process computes them."""
    order = _Order(rows, settings)
    for begin in range(0, len(order), settings.batch):
        batch = [order[place] for place in range(begin, min(begin + settings.batch, len(order)))]
        yield _groups(batch, settings)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for torn in [path for path in checkpoints if not (path / FINISHED).exists()]:
        shutil.rmtree(torn)
    return next((str(path) for path in reversed(checkpoints) if path.exists()), None)


def trains_in_bf16(dtype: torch.dtype, device: torch.device, folder: Path) -> bool:
    """Whether the matrix products of a training are done in bfloat16.

    On a CPU it is measured: with avx512_bf16 and without AMX bfloat16 can take twice as long as float32. The
    choice is stored in `folder`, beside the checkpoints, so that a resumed run goes on in the same numbers.
    """
    if dtype != torch.bfloat16 or device.type != "cpu":
        return dtype == torch.bfloat16
    path = folder / PRECISION
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "bfloat16" if _product_seconds(dtype) < _product_seconds(torch.float32) else "float32"
        )
    return path.read_text() == "bfloat16"


def _product_seconds(dtype: torch.dtype) -> float:
    """CPU seconds of a product as large as those of a small model; the least of a few."""
    rows, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        F.linear(rows, weight)
        seconds.append(time.process_time() - begun)
    return min(seconds)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is torch's or Python's way to say that memory ran out."""
    cannot_allocate = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return cannot_allocate or isinstance(error, MemoryError | torch.OutOfMemoryError)


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _layers(adapted: PeftModel, settings: TrainingSettings) -> AbstractContextManager[None]:
    if not settings.fused or _device(adapted).type != "cuda":
        return nullcontext()
    return fused.layers(adapted, [module for module in adapted.modules() if type(module) is LoraLinear])


def _arguments(
    folder: Path, settings: TrainingSettings, held: bool, device: torch.device
) -> TrainingArguments:
    """Logs each update; saves and measures at the same updates, as keeping the best demands."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch // _processes(),
        num_train_epochs=1,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="steps",
        save_steps=settings.every,
        save_total_limit=2,
        eval_strategy="steps" if held else "no",
        eval_steps=settings.every,
        load_best_model_at_end=held,
        metric_for_best_model="eval_loss" if held else None,
        greater_is_better=False if held else None,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=False,
        seed=settings.seed,
        restore_callback_states_from_checkpoint=True,
        report_to=[],
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _optimizer(adapted: PeftModel, settings: TrainingSettings, total: int) -> tuple[Any, Any]:
    """AdamW whose rate warms up, then falls linearly to zero."""
    weights = [value for value in adapted.parameters() if value.requires_grad]
    on_gpu = _device(adapted).type == "cuda"
    optimizer = torch.optim.AdamW(
        weights, lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=on_gpu or None
    )

    def share(number: int) -> float:
        return min((number + 1) / max(settings.warm, 1), max(total - number, 0) / total)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


class _Order(torch.utils.data.Dataset[EncodedRow]):
    """The rows of all epochs, each epoch in its own seeded order, as many as make whole updates.

    Several processes would fill up a last, smaller update with rows that they have seen already.
    """

    def __init__(self, rows: Sequence[EncodedRow], settings: TrainingSettings) -> None:
        self._rows = rows
        self._order: list[int] = []
        for epoch in range(settings.epochs):
            drawn = list(range(len(rows)))
            random.Random(settings.seed + epoch).shuffle(drawn)
            self._order += drawn
        if len(self._order) > settings.batch:
            self._order = self._order[: len(self._order) // settings.batch * settings.batch]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> EncodedRow:
        return self._rows[self._order[place]]


def _together(rows: list[EncodedRow]) -> dict[str, list[EncodedRow]]:
    return {"rows": rows}


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Tells of each update, ends training when told to, and marks checkpoints that are whole."""

    def __init__(self, watch: Callable[[Update], None], stopping: Callable[[], bool], total: int) -> None:
        self._watch, self._stopping, self._total = watch, stopping, total
        self.stopped = False

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        self.stopped = _any_process(self._stopping())
        if self.stopped:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            self._watch(Update(state.global_step, self._total, float(logs["loss"])))

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / FINISHED).touch()


def _any_process(stopping: bool) -> bool:
    """Whether any process says so: all must stop at the same update, else they wait for each other."""
    if _processes() == 1:
        return stopping
    flags: list[bool] = [False] * _processes()
    dist.all_gather_object(flags, stopping)
    return any(flags)


class _AlignTrainer(Trainer):  # type: ignore[misc]
    """An update over groups of like length, and held-out rows measured by the same loss."""

    control: Any

    def __init__(
        self, model: PeftModel, settings: TrainingSettings, held: Sequence[EncodedRow], **options: Any
    ) -> None:
        super().__init__(model=model, **options)
        self._settings, self._held = settings, held
        if settings.recompute:
            _recompute(model)

    def _get_train_sampler(self, *_: Any) -> Any:
        """`_Order` has shuffled the rows; the argument that says so has another name in other releases."""
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Sets the gradients of the mean loss over the answers of the whole batch, over all processes."""
        model.train()
        rows, settings = inputs["rows"], self._settings
        total = _summed(sum(row_weight(row, settings) for row in rows), self.args.device)
        groups = _groups(rows, settings)
        alone = self.args.world_size == 1
        if alone and settings.threads > 1 and self.args.device.type == "cpu":
            return _side_by_side(model, groups, settings, total)
        loss = torch.zeros((), device=self.args.device)
        for number, group in enumerate(groups):
            last = number + 1 == len(groups)
            with nullcontext() if alone or last else model.no_sync():
                part = _loss(model, group, settings) / total * self.args.world_size
                part.backward()
            loss += part.detach()
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """`eval_loss` of the held-out answers, the same in every process."""
        model = self.model.eval()
        with torch.no_grad():
            parts = [_loss(model, group, self._settings) for group in _groups(self._held, self._settings)]
        weight = sum(row_weight(row, self._settings) for row in self._held)
        losses = [float(sum(map(float, parts)) / weight)]
        if self.args.world_size > 1:
            dist.broadcast_object_list(losses)
        metrics = {"eval_loss": losses[0]}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        model.train()
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        return 0


def _recompute(model: PeftModel) -> None:
    """Activations of the blocks are computed again in the backward pass: more work, far less memory."""
    base = model.get_base_model()
    renamed = getattr(base, "activation_checkpointing_enable", None)
    if renamed is not None:
        renamed(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _summed(value: float, device: torch.device) -> float:
    if _processes() == 1:
        return value
    total = torch.tensor(value, device=device)
    dist.all_reduce(total)
    return float(total)


def _groups(rows: Sequence[EncodedRow], settings: TrainingSettings) -> list[list[EncodedRow]]:
    shared = sum(len(row.input_ids) for row in rows) // (2 * settings.threads) + 1
    budget = max((settings.budget or shared) >> settings.halvings, 1)
    return [[rows[index] for index in group] for group in by_length(rows, budget)]


def _side_by_side(
    model: PeftModel, groups: Sequence[Sequence[EncodedRow]], settings: TrainingSettings, total: float
) -> Tensor:
    """The groups in threads, one core each: small matrices gain more from this than from shared kernels."""
    weights = [value for value in model.parameters() if value.requires_grad]

    def gradients(group: Sequence[EncodedRow]) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = _loss(model, group, settings) / total
        return loss.detach(), torch.autograd.grad(loss, weights)

    loss = torch.zeros(())
    with ThreadPoolExecutor(settings.threads) as pool:
        for value, group_gradients in pool.map(gradients, groups):
            loss += value
            for weight, gradient in zip(weights, group_gradients, strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
    return loss


def _loss(model: Any, rows: Sequence[EncodedRow], settings: TrainingSettings) -> Tensor:
    device = _device(model)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        return weighted_loss(model, rows, settings.first, settings.long_answer)


def row_weight(row: EncodedRow, settings: TrainingSettings) -> float:
    """What the tokens of the row's answer weigh together."""
    return (row.answer_length + settings.first - 1) * _token_weight(row, settings.long_answer)


def _token_weight(row: EncodedRow, long_answer: int) -> float:
    return min(1.0, long_answer / max(row.answer_length, 1)) if long_answer else 1.0


def weighted_loss(model: Any, rows: Sequence[EncodedRow], first: float, long_answer: int = 0) -> Tensor:
    """Sum of the answers' cross-entropies, the first token of each answer weighted `first`.

    With `long_answer` the tokens of longer answers weigh less, in all as many as that of plain tokens.
    The vocabulary's scores are made only for the columns where some row predicts an answer token.
    """
    device = _device(model)
    ids, labels = _padded(rows)
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    answered = targets != IGNORED
    begins = answered & ~F.pad(answered, (1, 0))[:, :-1]
    columns = answered.any(0).nonzero()[:, 0]
    # Places are found on the CPU: a mask as index would make it wait for the GPU.
    row, column = answered[:, columns].nonzero(as_tuple=True)
    answer_ids = targets[row, columns[column]].to(device)
    by_row = torch.tensor([_token_weight(encoded, long_answer) for encoded in rows])[:, None]
    scale = (torch.where(begins, first, 1.0) * by_row)[row, columns[column]].to(device)
    scores = _scores(model, ids.to(device), columns.to(device))[row.to(device), column.to(device)].float()
    return (F.cross_entropy(scores, answer_ids, reduction="none") * scale).sum()


def _scores(model: Any, ids: Tensor, columns: Tensor) -> Tensor:
    """Scores [rows, columns, vocabulary] of the given columns; the rest is left out where the model can.

    No mask: padding stands on the right, where a causal model does not look, and attention without a mask
    has the faster kernel.
    """
    base = getattr(model, "module", model).get_base_model()
    if "logits_to_keep" in signature(base.forward).parameters:
        scores = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
    else:
        scores = model(input_ids=ids, use_cache=False).logits[:, columns]
    return scores  # type: ignore[no-any-return]


def _padded(rows: Sequence[EncodedRow]) -> tuple[Tensor, Tensor]:
    """Ids and labels, both [rows, length], padded on the right."""
    length = max(len(row.input_ids) for row in rows)
    ids = [[*row.input_ids, *([0] * (length - len(row.input_ids)))] for row in rows]
    labels = [[*row.labels, *([IGNORED] * (length - len(row.labels)))] for row in rows]
    return torch.tensor(ids), torch.tensor(labels)


@torch.no_grad()
def soften(adapted: PeftModel, share: float) -> None:
    """Go `share` of the way from the base to the trained model (Wortsman et al., 2022, arXiv 2109.01903).

    A small model forgets some of its reading for what it is taught; part of the way keeps most of both.
    """
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.mul_(share)


def save(adapted: PeftModel, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` (bf16)."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.bfloat16() for name, value in get_peft_model_state_dict(adapted).items()}
    adapted.save_pretrained(folder, state_dict=None, safe_serialization=True)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = {**config, "base_model_name_or_path": ""}  # a path of the machine that trained it says nothing
    (folder / "adapter_config.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    _save_weights(state, folder / "adapter_model.safetensors")
    (folder / "README.md").unlink(missing_ok=True)


def _save_weights(state: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: value.contiguous() for name, value in state.items()}, str(path), metadata={"format": "pt"}
    )
