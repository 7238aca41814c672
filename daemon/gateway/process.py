"""The process around the gateway: its listener, its signals, its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn

from daemon.client import target
from daemon.gateway.app import create_app
from daemon.gateway.daemon_calls import DaemonCalls
from daemon.metrics import GatewayMetrics, MetricsServer
from daemon.settings import OFF, Settings
from lte_runtime.errors import Refused

log = structlog.get_logger(__name__)
# What a request line and its headers may take, in bytes, before they are complete.
MAX_HEAD_BYTES = 32 << 10
KEEP_ALIVE_S = 15


def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Raises `Refused` for an address that cannot be bound, and where requests need tokens and none exist.
    """
    gateway = settings.gateway
    _check(settings)
    daemon = DaemonCalls(
        target(settings.client.address) or f"unix:{Path(settings.socket).absolute()}",
        tls_ca=settings.client.tls_ca,
        token_needed=gateway.is_public,
        timeout_s=gateway.timeout_s,
        max_message_bytes=settings.rpc.max_message_bytes,
        tls_cert=settings.client.tls_cert,
        tls_key=settings.client.tls_key,
    )
    log.info("gateway", listen=gateway.listen, metrics=gateway.metrics_listen, daemon=daemon.address)
    metrics = GatewayMetrics()
    server = uvicorn.Server(_config(settings, daemon, metrics))
    with _served(metrics, gateway.metrics_listen):
        try:
            server.run()
        except SystemExit as error:
            # uvicorn has logged why it could not listen.
            raise Refused(f"the gateway cannot listen on {gateway.listen}: set gateway.listen") from error


def _check(settings: Settings) -> None:
    gateway = settings.gateway
    if gateway.listen == OFF:
        raise Refused("gateway.listen is off: set it to host:port to start the gateway")
    # A daemon at another address has settings of its own.
    if gateway.is_public and settings.client.address is None and settings.rpc.token_file is None:
        raise Refused(
            "every request of this gateway needs a token, and the daemon has none: set rpc.token_file "
            "(`lte token new` makes tokens), or say by client.address which daemon has"
        )


@contextmanager
def _served(metrics: GatewayMetrics, listen: str) -> Iterator[None]:
    """Meanwhile `/metrics` at an address of its own, which is for Prometheus and not for callers."""
    if listen == OFF:
        yield
        return
    try:
        server = MetricsServer(metrics, listen)
    except Refused as error:
        raise Refused(str(error).replace("metrics.listen", "gateway.metrics_listen")) from error
    try:
        yield
    finally:
        server.stop()


def _config(settings: Settings, daemon: DaemonCalls, metrics: GatewayMetrics) -> uvicorn.Config:
    gateway = settings.gateway
    host, _, port = gateway.listen.rpartition(":")
    proxies = gateway.trusted_proxies
    return uvicorn.Config(
        create_app(gateway, daemon, metrics),
        host=host.strip("[]"),
        port=int(port),
        ssl_certfile=gateway.tls_cert,
        ssl_keyfile=gateway.tls_key,
        # Named, not chosen by what is installed: the same everywhere.
        loop="asyncio",
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.rpc.drain_s),
    )
