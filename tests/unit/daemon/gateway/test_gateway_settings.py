"""Where the gateway may listen, and what it refuses to start with."""

from __future__ import annotations

import pytest

from daemon.config import load
from daemon.gateway.process import serve
from lte_runtime.errors import BadRequest, Refused

TLS = {"gateway.tls_cert": "c.pem", "gateway.tls_key": "k.pem"}
PROXY = {"gateway.trusted_proxies": ["10.0.0.7"]}
HOSTS = {"gateway.hosts": ["lte.example"]}
PUBLIC = {"gateway.listen": "0.0.0.0:8464"}


@pytest.mark.parametrize(
    ("flags", "public"),
    [
        ({}, False),
        ({"gateway.listen": "[::1]:1"}, False),
        (TLS, False),
        (PROXY, True),
        (PUBLIC | TLS | HOSTS, True),
        (PUBLIC | PROXY | HOSTS, True),
    ],
)
def test_everybody_but_this_machine_needs_a_token(flags: dict[str, object], public: bool) -> None:
    assert load(None, flags, {}).settings.gateway.is_public is public


@pytest.mark.parametrize("flags", [PROXY, PUBLIC | TLS | HOSTS])
def test_without_tokens_nobody_could_come_in(flags: dict[str, object]) -> None:
    with pytest.raises(Refused, match=r"rpc\.token_file"):
        serve(load(None, flags, {}).settings)


def test_what_is_off_is_not_started() -> None:
    with pytest.raises(Refused, match=r"gateway\.listen is off"):
        serve(load(None, {"gateway.listen": "off"}, {}).settings)


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (PUBLIC, "needs tls_cert and tls_key, or trusted_proxies"),
        (PUBLIC | HOSTS, "needs tls_cert and tls_key, or trusted_proxies"),
        (PUBLIC | TLS, "name in hosts"),
        (PUBLIC | PROXY, "name in hosts"),
        ({"gateway.tls_cert": "c.pem"}, "come together"),
        ({"gateway.trusted_proxies": ["nearby"]}, "IPv4 or IPv6"),
        ({"gateway.metrics_listen": "0.0.0.0:9465"}, "metrics.public"),
    ],
)
def test_what_would_be_open_is_refused_with_what_to_do(flags: dict[str, object], advice: str) -> None:
    with pytest.raises(BadRequest, match=advice):
        load(None, flags, {})
