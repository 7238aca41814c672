"""Clients that are not ours: plain producers, CloudEvents, gRPC reflection, Prometheus, and the shell."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from daemon_house import House, Json, fact, question, targets, until
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from daemon.metrics import GAUGES, Spec

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
Header = tuple[str, bytes]


@pytest.fixture(scope="module")
def producer(house: House) -> Iterator[Any]:
    made = KafkaProducer(bootstrap_servers=house.topic.bootstrap)
    yield made
    made.close()


def event_headers(**more: str) -> list[Header]:
    """The attributes of a CloudEvent in binary mode."""
    attributes = {"specversion": "1.0", "type": "lte.edit.v1", "source": "/plant/7", **more}
    return [(f"ce_{name}", value.encode()) for name, value in attributes.items()]


def structured(name: str, data: Json) -> bytes:
    envelope = {"specversion": "1.0", "type": "lte.edit.v1", "source": "/plant/7", "id": name, "data": data}
    return json.dumps(envelope).encode()


STRUCTURED: list[Header] = [("content-type", b"application/cloudevents+json; charset=utf-8")]
PLAIN: list[Header] = [("content-type", b"application/json")]


@pytest.mark.parametrize(
    ("subject", "key", "value", "headers"),
    [
        ("Mast A", None, json.dumps(fact("Mast A", "Rolf")).encode(), []),
        ("Mast B", b"any key", json.dumps(fact("Mast B", "Rolf"), indent=2).encode(), []),
        ("Mast C", None, json.dumps(fact("Mast C", "Rolf")).encode(), [*PLAIN, *event_headers(id="c-1")]),
        ("Mast D", b"Mast D", structured("d-1", fact("Mast D", "Rolf")), STRUCTURED),
    ],
    ids=["no key", "a key", "CloudEvents binary", "CloudEvents structured"],
)
def test_events_of_foreign_producers(
    house: House, producer: Any, subject: str, key: bytes | None, value: bytes, headers: Sequence[Header]
) -> None:
    sent = producer.send(house.topic.topic, value, key=key, headers=list(headers)).get(60)
    at = {"topic_id": house.topic.topic_id, "partition": sent.partition, "offset": sent.offset}
    answer = house.ask(question(subject), [at])
    assert targets(answer) == ["Rolf"]
    assert answer["citations"][0]["position"] == at
    if headers and headers != PLAIN:
        assert answer["citations"][0]["edit_id"] == f"{subject[-1].lower()}-1"
        assert answer["citations"][0]["source"]["uri"] == "/plant/7"


def test_a_null_value_withdraws_the_key(house: House) -> None:
    at = house.publish([fact("Mast N", "Rolf"), fact("Mast N", "Siri")])
    assert targets(house.ask(question("Mast N"), at)) == ["Siri"]
    at = house.send([(b"default/Mast N/owner", None)])
    # Another partition may hold the key of a foreign producer: its own positions are awaited all the same.
    assert house.ask(question("Mast N"), at)["scope"] == "base"


def test_reflection_is_enough_to_ask(house: House) -> None:
    """As grpcurl does it: list the services, fetch the messages, call without generated code."""
    at = house.publish([fact("Mast R", "Vera")])
    house.ask(question("Mast R"), at)
    with grpc.insecure_channel(house.stack.addresses.grpc) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        services = known.get_services()
        assert {"lte.v1.AnswerService", "lte.v1.EditService", "grpc.health.v1.Health"} <= set(services)
        pool = DescriptorPool(known)
        method = pool.FindServiceByName("lte.v1.AnswerService").FindMethodByName("Answer")
        request, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = channel.unary_unary(
            "/lte.v1.AnswerService/Answer",
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )
        answer: Any = call(request(question=question("Mast R")), timeout=60)
    assert answer.text == "Vera"


def test_admin_calls_are_not_open_on_tcp(house: House) -> None:
    from daemon.rpc.gen.lte.v1 import admin_service_pb2, admin_service_pb2_grpc

    with grpc.insecure_channel(house.stack.addresses.grpc) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_metrics_are_those_of_the_catalogue(house: House) -> None:
    import daemon.metrics as catalogue

    before = house.metrics()
    at = house.publish([fact("Mast M", "Gro"), {"subject": "Mast M"}, fact("Mast M", "Gro", id="m-2")])
    house.ask(question("Mast M"), at)
    after = house.metrics()

    def grown(name: str, *labels: tuple[str, str]) -> float:
        return after.get((name, labels), 0.0) - before.get((name, labels), 0.0)

    assert grown("lte_ingest_events_total") == 3
    assert grown("lte_ingest_applied_total") == 2
    assert grown("lte_ingest_rejected_total", ("code", "missing_key")) == 1
    assert grown("lte_answers_total", ("code", "OK"), ("scope", "edited")) == 1
    assert grown("lte_freshness_seconds_count") == 3
    assert after[("lte_state", (("state", "READY"),))] == 1
    assert after[("lte_stale", ())] == 0
    declared = {spec.name for spec in vars(catalogue).values() if isinstance(spec, Spec)}
    declared |= {spec.name for spec in GAUGES}
    # Jobs that may not have run yet.
    declared -= {"lte_index_recall", "lte_memory_state", "lte_snapshot_timestamp_seconds"}
    served = {name for name, _ in after}
    bare = {name.removesuffix(end) for name in served for end in ("_bucket", "_count", "_sum", "_created")}
    # No job has run yet, nothing was watched, trained, exchanged, reported, too long or passed over.
    unlabelled = {"lte_job_runs_total", "lte_job_seconds", "lte_adapter_swaps_total", "lte_feedback_total"}
    unlabelled |= {"lte_drift_probes_total", "lte_drift_reading", "lte_drift_margin", "lte_adapter_score"}
    unlabelled |= {"lte_realign_runs_total", "lte_realign_progress"}
    unlabelled |= {"lte_ingest_long_texts_total", "lte_topic_records_passed_over_total"}
    assert declared - unlabelled <= served | bare


def test_dead_letters_keep_the_record_and_say_why(house: House) -> None:
    bad, key = b'{"subject": "Mast X", "relation": "owner", "op": "explode"}', b"\x00key"
    (at,) = house.send([(key, bad)])
    house.ask("?", [at])
    part = TopicPartition(f"{house.topic.topic}.dlq", 0)
    consumer = KafkaConsumer(bootstrap_servers=house.topic.bootstrap, enable_auto_commit=False)
    consumer.assign([part])
    consumer.seek_to_beginning(part)

    def arrived() -> Any:
        found = [record for records in consumer.poll(200).values() for record in records]
        return [record for record in found if record.value == bad]

    (record,) = until(arrived, "the dead letter")
    consumer.close()
    headers = dict(record.headers)
    assert record.key == key
    assert headers["__connect.errors.topic"].decode() == house.topic.topic
    assert headers["__connect.errors.offset"].decode() == str(at["offset"])
    assert headers["__connect.errors.partition"].decode() == str(at["partition"])


def test_the_shell(house: House) -> None:
    """The commands of a first real use against the running daemon; codes and JSON."""
    name = f"Mast {uuid.uuid4().hex[:6]}"
    first = house.lte("publish", "-s", name, "-r", "owner", "-t", "Aud", "--wait", "--json")
    assert (first.code, first.json["published"]) == (0, 1), first.err
    second = house.lte("publish", "-s", name, "-r", "owner", "-t", "Ivo", "--wait", "--json")
    assert second.code == 0, second.err
    asked = house.lte("ask", question(name), "--json", "--at-least", second.json["positions"][0])
    assert (asked.code, targets(asked.json)) == (0, ["Ivo"])
    history = house.lte("edits", "history", "-s", name, "-r", "owner", "--json").json
    assert [each["state"] for each in history] == ["current", "superseded"]
    why = house.lte("edits", "why-not", history[1]["id"], "--json")
    assert (why.json["reason"], why.json["winner_id"]) == ("superseded", history[0]["id"])
    assert house.lte("retract", "-s", name, "-r", "owner", "--wait").code == 0
    assert targets(house.lte("ask", question(name), "--json").json) == ["Aud"]

    status = house.lte("status", "--json", "--check")
    assert (status.code, status.json["pid"]) == (0, house.stack.daemon_pid)
    verified = house.lte("index", "verify", "--json")
    assert (verified.code, verified.json["ok"]) == (0, True), verified.out
    rebuilt = house.lte("index", "rebuild", "--json")
    assert rebuilt.json["vectors"] == house.status()["memory"]["vectors_live"]
    assert targets(house.ask(question(name))) == ["Aud"]


def test_dead_letters_in_the_shell(house: House) -> None:
    bad = {"subject": "Mast Y", "relation": "owner", "target": [7]}
    at = house.publish([bad])
    house.ask("?", at)
    listed = house.lte("dlq", "list", "--json")
    (letter,) = [each for each in listed.json if each["position"] == at[0]]
    assert letter["code"] == "wrong_type"
    shown = house.lte("dlq", "show", str(letter["id"]), "--json")
    assert json.loads(shown.json["record_value"]) == bad
    replayed = house.lte("dlq", "replay", str(letter["id"]), "--json")
    assert (replayed.code, replayed.json["rejected"]) == (1, 1)
    assert house.lte("dlq", "show", "999999").code == 4
