"""Structured logs on stderr: JSON lines, or coloured ones for people. Fact text never appears above debug.

Whoever logs passes ids, positions and counts. As a second line of defence the fields that are known to
hold text (`TEXT_FIELDS`) are replaced by their length unless the level is debug.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

TEXT_FIELDS = frozenset(
    {
        "aliases",
        "answer",
        "object",
        "prompt",
        "question",
        "statement",
        "subject",
        "target",
        "text",
        "value",
    }
)


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Set the process's logging up, the standard library's included. `style`: auto, json or console."""
    out = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared = _shared_processors(hide_text=threshold > logging.DEBUG)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(style, out),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    # These libraries tell at info what is our own business to tell.
    for chatty in ("kafka", "apscheduler", "httpx2", "urllib3", "openvino", "transformers", "uvicorn", "mcp"):
        logging.getLogger(chatty).setLevel(max(threshold, logging.WARNING))
    # They warn of every turn of a loop over 100 ms, and of every run that waits for the one before it: both
    # are normal on a busy machine.
    for anxious in ("kafka.net.selector", "apscheduler.scheduler"):
        logging.getLogger(anxious).setLevel(max(threshold, logging.ERROR))


def warn_of_settings(warnings: Iterable[str]) -> None:
    """A line for each key of the configuration that is no longer a setting."""
    for warning in warnings:
        structlog.get_logger(__name__).warning("setting_deprecated", message=warning)


def _shared_processors(*, hide_text: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        *([_hide_text] if hide_text else []),
        structlog.processors.format_exc_info,
    ]


def _renderer(style: str, out: TextIO) -> Processor:
    if style == "console" or (style == "auto" and out.isatty()):
        return structlog.dev.ConsoleRenderer(colors=out.isatty())
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _hide_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in TEXT_FIELDS & event.keys():
        event[name] = f"<{len(str(event[name]))} characters>"
    return event
