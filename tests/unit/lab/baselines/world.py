"""Made-up facts whose subject ends the prompt, and random models of one token for each word.

In a random model nothing carries a subject's meaning to later tokens, so a value at the subject's last token
can be asked to say the target only where the target comes next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest
from tests.unit.answer.engine import tiny

END = "<|end|>"
PLACES = ("Arlen", "Sedge", "Brisk", "Quill", "Halden", "Nordby", "Kestrel", "Velmora", "Falke", "Tarvik")
KINDS = ("Bay", "Hill")
ASKED = ("Who leads", "The river of", "The saint of")
VALUES = ("Calder", "Reyl", "Moen", "Keel", "Berg", "Vess", "Luma", "Tarn", "Osk", "Riga")


def fact(number: int) -> EditRequest:
    subject = f"{PLACES[number % 10]} {KINDS[number % 2]}"
    return EditRequest(subject, f"{ASKED[number % 3]} {subject}", VALUES[(3 * number + 1) % 10])


EDITS = tuple(map(fact, range(10)))


def tokenizer() -> PreTrainedTokenizerFast:
    words = sorted({word for one in EDITS for word in one.statement.split()} | {*KINDS, "a", "is", "."})
    names = [END, "<unk>", *words]
    bare = Tokenizer(models.WordLevel({word: number for number, word in enumerate(names)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=END, unk_token="<unk>")
    whole.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return whole


def random_base(architecture: str) -> BaselineModel:
    torch.manual_seed(0)
    words = tokenizer()
    settings = tiny.config(architecture)
    settings.vocab_size = len(words)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
        model.get_input_embeddings().weight.normal_(0.0, 0.4)
    return BaselineModel(model.requires_grad_(False).eval(), words, architecture)


def texts(base: BaselineModel) -> list[Sequence[int]]:
    """What the key statistics are made from: prompts of all kinds, about all subjects."""
    return [
        reading.question(base, f"{asked} {place} {kind}")
        for asked in ASKED
        for place in PLACES
        for kind in KINDS
    ]
