"""TLS and SASL settings reach every client as they are given."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka_house import Running, until
from real_parts import missing_part

from daemon.kafka.connection import client_options
from daemon.kafka.dead_letters import DeadLetters, DeadLetterSettings
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.kafka.topics import TopicPlan, ensure_topics
from lte_runtime.errors import BadRequest, Retry
from ops.kafka.broker import Broker, BrokerUnavailable, free_ports

pytestmark = pytest.mark.kafka
PASSWORD = "only-for-this-test"
JAAS = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_lte="{PASSWORD}";'


def keytool(*arguments: str) -> None:
    subprocess.run(["keytool", *arguments, "-storepass", PASSWORD], check=True, capture_output=True)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """A broker with a SASL_SSL listener: plain address, secure address, and what a client needs there."""
    directory = tmp_path_factory.mktemp("secure")
    store, certificate, port = directory / "broker.p12", directory / "broker.pem", free_ports(1)[0]
    properties = {
        "listeners": "PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller_port},"
        f"SECURE://127.0.0.1:{port}",
        "advertised.listeners": "PLAINTEXT://127.0.0.1:${port},SECURE://127.0.0.1:" + str(port),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": JAAS,
        "listener.name.secure.ssl.keystore.location": str(store),
        "listener.name.secure.ssl.keystore.type": "PKCS12",
        "listener.name.secure.ssl.keystore.password": PASSWORD,
        "listener.name.secure.ssl.key.password": PASSWORD,
    }
    broker = Broker(directory / "broker", properties=properties)
    try:
        make_certificate(store, certificate)
        broker.start()
    except (BrokerUnavailable, FileNotFoundError) as error:
        missing_part(str(error))
    yield broker.bootstrap, f"127.0.0.1:{port}", client_settings(certificate)
    broker.stop()


def make_certificate(store: Path, certificate: Path) -> None:
    names = ("-alias", "broker", "-keystore", str(store))
    subject = ("-dname", "CN=broker", "-ext", "SAN=ip:127.0.0.1", "-keyalg", "EC", "-validity", "2")
    keytool("-genkeypair", *names, *subject, "-storetype", "PKCS12")
    keytool("-exportcert", *names, "-rfc", "-file", str(certificate))


def client_settings(certificate: Path) -> dict[str, str]:
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(certificate),
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "lte",
        "sasl_plain_password": PASSWORD,
    }


def test_all_clients_work_over_tls_and_sasl(secure: tuple[str, str, Mapping[str, str]]) -> None:
    plain, bootstrap, security = secure
    admin = KafkaAdminClient(bootstrap_servers=plain)
    ensure_topics(admin, [TopicPlan("edits", 1), TopicPlan("dlq", 1)])
    running = Running(KafkaSourceSettings(bootstrap, "edits", security=security)).ready()
    with Publisher(PublisherSettings(bootstrap, "edits", security)) as publisher:
        publisher.publish([{"subject": "Ada", "relation": "post", "target": "chair"}])
        publisher.publish([{"subject": "Ada", "relation": "post"}])
    until(lambda: running.memory.values() == ["chair"] and running.memory.quarantined())
    letters = DeadLetters(running.memory, DeadLetterSettings(bootstrap, "dlq", security))
    letters.step()
    assert letters.status().sent == 1
    letters.stop()
    letters.run()
    running.stop()
    admin.close()


def test_a_wrong_password_waits_and_names_the_reason(secure: tuple[str, str, Mapping[str, str]]) -> None:
    _, bootstrap, security = secure
    wrong = {**security, "sasl_plain_password": "wrong"}
    source = KafkaSource(KafkaSourceSettings(bootstrap, "edits", security=wrong, connect_timeout_s=3.0))
    with pytest.raises(Retry, match="no broker answers"):
        source.connect()
    source.close()


def test_names_that_are_no_security_settings_are_refused() -> None:
    with pytest.raises(BadRequest, match="ssl_cafil,"):
        client_options("x:1", {"ssl_cafil": "a", "zzz": 1}, bootstrap_timeout_s=1)
