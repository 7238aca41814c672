"""What every Kafka client here shares: addresses, TLS and SASL settings passed through, and faults."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaError

from lte_runtime.errors import BadRequest

log = logging.getLogger(__name__)
Security = Mapping[str, str | int | bool]

# Names that may be passed through to kafka-python, as its documentation spells them.
SECURITY_NAMES = frozenset(
    {
        "security_protocol", "ssl_check_hostname", "ssl_cafile", "ssl_certfile", "ssl_keyfile",
        "ssl_password", "ssl_crlfile", "ssl_ciphers", "sasl_mechanism",
        "sasl_plain_username", "sasl_plain_password",
        "sasl_kerberos_name", "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "proxy_url",
    }
)  # fmt: skip


def client_options(bootstrap: str, security: Security, *, bootstrap_timeout_s: float) -> dict[str, Any]:
    """Options common to consumer, producer and admin client; refuses names that are no security settings."""
    if unknown := sorted(set(security) - SECURITY_NAMES):
        raise BadRequest(f"kafka.security: no such setting: {', '.join(unknown)}")
    return {
        "bootstrap_servers": bootstrap.split(","),
        "bootstrap_timeout_ms": int(bootstrap_timeout_s * 1000),
        "request_timeout_ms": 10_000,
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1_000,
        **security,
    }


def close_clients(consumer: Any, sender: Any) -> None:
    """Close those that are open, without waiting long for a broker that is gone."""
    if consumer is not None:
        with suppress(KafkaError):
            consumer.close(timeout_ms=2000)
    if sender is not None:
        sender.close(timeout=1)


class Fault:
    """Why a topic cannot be used now: `text`, empty while it can. What is new is logged, once."""

    def __init__(self, what: str, text: str = "") -> None:
        self._what, self.text = what, text

    def note(self, error: Exception, more: str = "") -> None:
        text = str(error) or type(error).__name__
        if text != self.text:
            log.warning("%s: %s%s", self._what, text, more)
        self.text = text

    def clear(self) -> None:
        self.text = ""
