"""The topics that belong to a deployment, with the settings that their use demands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from daemon.kafka.client_internals.clients import open_client
from daemon.kafka.connection import Security, client_options
from lte_runtime import redact
from lte_runtime.errors import NotFound, Refused, Retry

TIMESTAMP_TYPE, CREATE_TIME = "message.timestamp.type", "CreateTime"
CREATE_TIME_WARNING = (
    "message.timestamp.type is CreateTime, so publishers' clocks decide between records of different "
    "partitions; set it to LogAppendTime (kafka-configs --alter --entity-type topics)"
)

# History is the product: nothing may expire. The broker's clock decides order between publishers.
_KEEP: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
}
# A dead letter is a record with headers added: it must fit although the record filled its own topic's limit,
# and it keeps the record's own time.
_DEAD: Mapping[str, str] = {**_KEEP, "max.message.bytes": "16777216", "message.timestamp.type": "CreateTime"}
_COMPACTED: Mapping[str, str] = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}


# Replication that the brokers' own default.replication.factor decides.
BROKERS_CHOICE = -1


@dataclass(frozen=True)
class TopicPlan:
    name: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)


def plans(
    *,
    edits: str = "lte.edits",
    dlq: str = "lte.edits.dlq",
    control: str = "lte.control",
    adapters: str = "lte.adapters",
    audit: str = "lte.audit",
    partitions: int = 3,
) -> tuple[TopicPlan, ...]:
    """All topics of a deployment; `partitions` is for the edits, the others have one."""
    return (
        TopicPlan(edits, partitions, _KEEP),
        TopicPlan(dlq, 1, _DEAD),
        TopicPlan(control, 1, _KEEP),
        TopicPlan(audit, 1, _KEEP),
        TopicPlan(adapters, 1, _COMPACTED),
    )


def ensure_topics(
    admin: Any, topics: Iterable[TopicPlan] | None = None, *, replication: int = 1
) -> tuple[str, ...]:
    """Create the topics that are missing; returns their names. Existing ones are left as they are."""
    created = tuple(plan.name for plan in topics or plans() if _create(admin, plan, replication))
    if created:
        admin.wait_for_topics(list(created))
    return created


def _create(admin: Any, plan: TopicPlan, replication: int) -> bool:
    topic = NewTopic(plan.name, plan.partitions, replication, topic_configs=dict(plan.configs))
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    return True


def create_missing(
    bootstrap: str,
    security: Security,
    topics: Iterable[TopicPlan],
    *,
    replication: int = BROKERS_CHOICE,
    timeout_s: float,
) -> tuple[str, ...]:
    """`ensure_topics` by a client of its own, which asks to create nothing that exists: that takes no right.

    Raises `Retry` where no broker answers, `Refused` where one does not create a topic.
    """
    admin = open_client(KafkaAdminClient, client_options(bootstrap, security, bootstrap_timeout_s=timeout_s))
    try:
        existing = set(admin.list_topics())
        missing = [plan for plan in topics if plan.name not in existing]
        return ensure_topics(admin, missing, replication=replication) if missing else ()
    except KafkaError as error:
        raise Refused(
            f"the brokers at {redact.url(bootstrap)} do not create a topic: {error}; create the topics as "
            "their administrator (docs/operations.md), then start again"
        ) from error
    finally:
        admin.close()


def topic_configs(admin: Any, topic: str) -> dict[str, str]:
    """Cleanup policy and timestamp type of a topic; empty when brokers do not tell (no right to describe it,
    no such topic)."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": None, TIMESTAMP_TYPE: None})
    answer = admin.describe_configs([resource], config_filter="all")
    return {
        name: str(config["value"])
        for topics in answer.values()
        for configs in topics.values()
        for name, config in configs.items()
        if name in ("cleanup.policy", TIMESTAMP_TYPE)
    }


def look_up(bootstrap: str, security: Security, topic: str, *, timeout_s: float) -> dict[str, str]:
    """`topic_configs` by a client of its own; raises `NotFound` without the topic, `Retry`, `Refused`."""
    admin = open_client(KafkaAdminClient, client_options(bootstrap, security, bootstrap_timeout_s=timeout_s))
    try:
        if topic not in admin.list_topics():
            raise NotFound(f"topic {topic} does not exist")
        return topic_configs(admin, topic)
    except KafkaError as error:
        raise Retry(f"{topic}: {error}") from error
    finally:
        admin.close()
