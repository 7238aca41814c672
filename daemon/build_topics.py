"""The control and audit topics, made from the settings; the command line imports it too: nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from daemon.kafka.audit import Audit, AuditSettings
from daemon.kafka.control import ControlSettings, ControlTopic
from daemon.settings import OFF, Settings


def control_topic(
    settings: Settings, on_bad: Callable[[str, str], None] = lambda _topic, _code: None
) -> ControlTopic | None:
    kafka = settings.kafka
    if kafka.control_topic == OFF:
        return None
    return ControlTopic(control_settings(settings), on_bad=on_bad)


def control_settings(settings: Settings) -> ControlSettings:
    kafka = settings.kafka
    return ControlSettings(
        kafka.bootstrap,
        kafka.control_topic,
        kafka.group_id,
        kafka.security,
        session_s=kafka.control_session_s,
    )


def audit_topic(settings: Settings, instance: str) -> Audit | None:
    kafka = settings.kafka
    if kafka.audit_topic == OFF:
        return None
    return Audit(AuditSettings(kafka.bootstrap, kafka.audit_topic, kafka.security, instance))
