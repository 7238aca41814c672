"""Where adapters come from, as the settings want it: the configured one, the registry; their watch."""

from __future__ import annotations

import structlog

from daemon.adapters.swap import Configured
from daemon.parts.models import adapter_directory, is_stub
from daemon.settings import Settings
from lte_runtime.align.registry import Registry
from lte_runtime.align.shared_store import AdapterStore
from lte_runtime.align.watch import WatchPolicy
from lte_runtime.answer.engine.files import MANIFEST, read_json, verify_adapter
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.errors import LteError
from lte_runtime.store.adapter_history import CONFIGURED, AdapterLedger

log = structlog.get_logger(__name__)


def configured_adapter(settings: Settings, engine: AdapterEngine, ledger: AdapterLedger) -> Configured:
    """The adapter that the settings name, checked. Raises `Damaged` or `Refused` only while it is the one to
    serve: another one serves without it."""
    try:
        return _checked(settings, engine)
    except LteError as error:
        if ledger.active().adapter == CONFIGURED:
            raise
        log.error("configured_adapter_refused", error=str(error))
        return Configured()


def _checked(settings: Settings, engine: AdapterEngine) -> Configured:
    if is_stub(settings.model.path):
        return Configured(engine.adapter)
    directory = adapter_directory(settings)
    if directory is None:
        if settings.model.adapter == "embedded":
            hint = "the base model reads the facts; `lte align train` makes an adapter for it"
            log.info("no_shipped_adapter", model=settings.model.path, hint=hint)
        return Configured()
    verified = verify_adapter(directory, engine.fingerprint)
    return Configured(verified.ref, directory, read_json(directory, MANIFEST))


def registry(settings: Settings, engine: AdapterEngine, configured: Configured) -> Registry:
    """The name of the configured adapter stays free for it."""
    url = settings.registry.url
    return Registry(
        settings.registry_path,
        engine.check_adapter,
        reserved={configured.ref.id} if configured.ref else set(),
        store=AdapterStore(url) if url else None,
    )


def watch_policy(settings: Settings) -> WatchPolicy:
    return WatchPolicy(settings.registry.watch_margin)
