"""The daemon's ends of its Kafka topics, as the settings want them. Made here, connected by their threads."""

from __future__ import annotations

from collections.abc import Callable

from daemon.kafka.announcements import Announcements, AnnouncementSettings, Replica
from daemon.kafka.audit import Audit, AuditSettings
from daemon.kafka.control import ControlSettings, ControlTopic
from daemon.kafka.dead_letters import DeadLetters, DeadLetterSettings, Quarantine, Shared
from daemon.kafka.dlq_contents import DlqReader
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.kafka.topics import TopicPlan
from daemon.kafka.topics import plans as topic_plans
from daemon.settings import OFF, Settings

# Counts a record that is passed over, by topic and code.
OnBad = Callable[[str, str], None]


def plans(settings: Settings, partitions: int = 3) -> tuple[TopicPlan, ...]:
    """The topics that must exist; `partitions` is for the edits, the others have one."""
    kafka = settings.kafka
    named = topic_plans(
        edits=kafka.topic,
        dlq=kafka.dlq_topic,
        control=kafka.control_topic,
        adapters=kafka.adapters_topic,
        audit=kafka.audit_topic,
        partitions=partitions,
    )
    return tuple(plan for plan in named if plan.name != OFF)


def source(settings: Settings) -> KafkaSource:
    """The edits topic, read."""
    kafka = settings.kafka
    return KafkaSource(
        KafkaSourceSettings(
            kafka.bootstrap,
            kafka.topic,
            kafka.group_id,
            kafka.security,
            allow_compacted=kafka.allow_compacted,
            refresh_s=kafka.refresh_s,
            batch_max_bytes=kafka.batch_max_bytes,
            event_max_bytes=settings.memory.event_max_bytes,
        )
    )


def publisher(settings: Settings) -> Publisher:
    """The edits topic, written."""
    kafka = settings.kafka
    return Publisher(PublisherSettings(kafka.bootstrap, kafka.topic, kafka.security))


def dead_letters(
    settings: Settings, quarantine: Quarantine, control: ControlTopic | None, on_bad: OnBad
) -> DeadLetters:
    """With a control topic the owner alone sends."""
    kafka = settings.kafka
    chosen = DeadLetterSettings(kafka.bootstrap, kafka.dlq_topic, kafka.security)
    if control is None:
        return DeadLetters(quarantine, chosen)
    contents = DlqReader(kafka.bootstrap, kafka.dlq_topic, kafka.security, on_bad)
    return DeadLetters(quarantine, chosen, shared=Shared(control.epoch, contents))


def announcements(
    settings: Settings, replica: Replica, may_write: Callable[[], bool], on_bad: OnBad
) -> Announcements | None:
    kafka = settings.kafka
    if kafka.adapters_topic == OFF:
        return None
    control = "" if kafka.control_topic == OFF else kafka.control_topic
    chosen = AnnouncementSettings(kafka.bootstrap, kafka.adapters_topic, kafka.security, control)
    return Announcements(replica, chosen, may_write=may_write, on_bad=on_bad)


def control(settings: Settings, on_bad: OnBad) -> ControlTopic | None:
    if settings.kafka.control_topic == OFF:
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


def audit(settings: Settings, instance: str) -> Audit | None:
    """`instance` names this process in its records, as it does in its claims."""
    kafka = settings.kafka
    if kafka.audit_topic == OFF:
        return None
    return Audit(AuditSettings(kafka.bootstrap, kafka.audit_topic, kafka.security, instance))
