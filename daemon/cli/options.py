"""Options that several commands share, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_WHERE = "Where"

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the fact or question.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file. Default: LTE_CONFIG, then ./lte.toml."),
]


class Arch(StrEnum):
    """Architectures of which a model is at hand: SmolLM2, the default, and a small Qwen2 of the checkout."""

    LLAMA = "llama"
    QWEN2 = "qwen2"


Architecture = Annotated[
    Arch | None,
    typer.Option("--arch", help="llama: smollm2; qwen2: a small one of the checkout. Default: model.path."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="host:port, unix:PATH, or IP:PORT,IP:PORT.", rich_help_panel=_WHERE),
]
Socket = Annotated[
    Path | None, typer.Option("--socket", help="The daemon's unix socket.", rich_help_panel=_WHERE)
]
AdminSocket = Annotated[
    Path | None,
    typer.Option("--admin-socket", help="The daemon's admin socket.", rich_help_panel=_WHERE),
]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", "-b", help="Kafka brokers, host:port.", rich_help_panel=_WHERE)
]
Topic = Annotated[str | None, typer.Option("--topic", help="Topic of the edits.", rich_help_panel=_WHERE)]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Seconds until the call gives up.")
]
