"""The producer that dead letters and `lte publish` share: idempotent, acknowledged by all replicas."""

from __future__ import annotations

from typing import Any

from daemon.kafka.client_internals import clients
from daemon.kafka.connection import Security, client_options

MAX_REQUEST_BYTES = 16 << 20


def open_producer(bootstrap: str, security: Security, *, timeout_s: float) -> Any:
    """A connected producer that gives up on a record after `timeout_s`; raises `Retry` without brokers."""
    timeout_ms = int(timeout_s * 1000)
    options = {
        **client_options(bootstrap, security, bootstrap_timeout_s=min(timeout_s, 5.0)),
        "acks": "all",
        "enable_idempotence": True,
        "max_block_ms": timeout_ms,
        "request_timeout_ms": timeout_ms,
        "delivery_timeout_ms": timeout_ms,
        "max_request_size": MAX_REQUEST_BYTES,
        "metrics_enabled": False,
        # A mistyped or deleted topic must not come into being with a cluster's default retention.
        "allow_auto_create_topics": False,
    }
    return clients.open_producer(options)
