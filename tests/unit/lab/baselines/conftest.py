from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lte_runtime.align.stock.sources import Sources, StockFact
from lte_runtime.answer.encoder.stub import StubEncoder
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.material import LessonMaterial
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.registry import Supplies
from ops.lab.recipes.generator import Generator
from tests.unit.answer.engine import tiny

ARCHITECTURES = ("llama", "qwen2", "gpt2")
EDITS = [
    EditRequest("Port Arlen", "Who is the harbour master of Port Arlen?", "Ines Calder"),
    EditRequest("Mount Sedge", "Who runs the observatory on Mount Sedge?", "Tomas Reyl"),
    EditRequest("Brisk kettle", "What does the Brisk kettle cost?", "49 euros"),
    EditRequest("Quill editor", "The newest version of the Quill editor is", "3.2.1"),
    EditRequest("Lake Orm", "Which town lies on Lake Orm?", "Vessby"),
    EditRequest("Halden Press", "Where does Halden Press sit?", "Riga"),
    EditRequest("Anna Berg", "Which club does Anna Berg play for?", "Nordby"),
    EditRequest("Team Falke", "The coach of Team Falke is", "Ida Moen"),
    EditRequest("Kestrel Air", "Who owns Kestrel Air?", "Luma Group"),
    EditRequest("Zürich Nord", "Who is the mayor of Zürich Nord?", "Urs Keel"),
]


@pytest.fixture
def make_base() -> Callable[..., BaselineModel]:
    """A random model with two layers of width 32; whatever is the same seed is the same model."""

    def make(architecture: str = "llama", *, chat: bool = True, seed: int = 0) -> BaselineModel:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny.config(architecture), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(5)
            # Wide enough for sure answers, and not zero for the end token, which is the pad token too.
            model.get_input_embeddings().weight.normal_(0.0, 0.4)
        return BaselineModel(
            model.requires_grad_(False).eval(), tiny.tokenizer(chat=chat), f"{architecture}-{seed}"
        )

    return make


def weights_of(base: BaselineModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in base.model.state_dict().items()}


def same_bits(base: BaselineModel, before: dict[str, torch.Tensor]) -> bool:
    """Whether every weight has the bits that it had."""
    after = base.model.state_dict()
    return all(
        torch.equal(value.view(torch.int32), after[name].view(torch.int32)) for name, value in before.items()
    )


def stock(relation: str, number: int) -> StockFact:
    subject, target = f"{relation.title()}land {number}", f"{relation.upper()}{number}"
    asked = (
        f"What is the {relation} of {subject}?",
        f"The {relation} of {subject} is",
        f"{subject} {relation}",
    )
    return StockFact(relation, subject, target, (), asked)


FACTS = tuple(stock(relation, number) for relation in ("code", "port") for number in range(6))


def material() -> LessonMaterial:
    """A dozen made-up remembered facts, and what the generator invents."""
    return LessonMaterial(Generator(Sources(stock=FACTS)), "test", text_rows=24)


def supplies(base: BaselineModel, directory: Path) -> Supplies:
    return Supplies(base, StubEncoder(), material(), directory)
