"""Answers, their sockets, and the watch on their quality, as the settings want them."""

from __future__ import annotations

from daemon.drift_watch import WatchSettings
from daemon.rpc.server import ListenerSettings
from daemon.settings import OFF, Settings
from lte_runtime.answer.answerer import AnswererSettings
from lte_runtime.answer.retriever import RetrieverSettings
from lte_runtime.drift.decide import DecisionSettings


def answerer_settings(settings: Settings) -> AnswererSettings:
    chosen = settings.answer
    return AnswererSettings(
        max_waiting=waiting_limit(settings),
        max_new_tokens=chosen.max_new_tokens_limit,
        fidelity=chosen.fidelity,
        retriever=RetrieverSettings(k=chosen.k, history=chosen.history),
    )


def waiting_limit(settings: Settings) -> int:
    """Calls that may wait for Kafka at once: a quarter of a listener's, so that the others are answered."""
    return max(1, settings.rpc.max_concurrent // 4)


def listener_settings(settings: Settings) -> ListenerSettings:
    chosen = settings.rpc
    return ListenerSettings(
        socket=settings.socket,
        group_of=settings.state_dir,
        listen=None if chosen.listen == OFF else chosen.listen,
        admin_socket=settings.admin_socket,
        tls_cert=chosen.tls_cert,
        tls_key=chosen.tls_key,
        tls_client_ca=chosen.tls_client_ca,
        token_file=chosen.token_file,
        socket_roles=tuple(chosen.socket_roles),
        listen_roles=tuple(chosen.listen_roles),
        deadline_max_s=chosen.deadline_max_s,
        max_concurrent=chosen.max_concurrent,
        max_message_bytes=chosen.max_message_bytes,
    )


def watch_settings(settings: Settings) -> WatchSettings:
    """The watch on drift."""
    chosen = settings.drift
    return WatchSettings(
        probes=chosen.probes,
        budget_s=chosen.budget_s,
        decision=decision_settings(settings),
    )


def decision_settings(settings: Settings) -> DecisionSettings:
    """The limits on starts by drift."""
    chosen = settings.realign
    age = chosen.max_adapter_age_s
    return DecisionSettings(
        cool_down_ms=round(chosen.cool_down_s * 1000),
        settle_ms=round(chosen.min_fact_age_s * 1000),
        min_new_edits=chosen.min_new_edits,
        daily_budget=chosen.daily_budget,
        max_adapter_age_ms=None if age is None else round(age * 1000),
    )
