"""The daemon's configuration: edgebitd.toml, read into frozen dataclasses. docs/daemon.md describes every key.

An unknown key is refused, so a slip of the pen cannot become a default.
"""

import dataclasses
import os
import socket
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from edgebit.daemon import topics
from edgebit.errors import ConfigError
from edgebit.runtime.abi import MAX_DRAFT
from edgebit.runtime.defaults import PREFIX_MEMORY_MIB
from edgebit.runtime.native import KV_TYPES
from edgebit.runtime.session import SPECULATE

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceConfig:
    """[device]"""

    name: str = ""  # empty: the host's name, made lower-case


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttConfig:
    """[mqtt]: the broker and how to reach it."""

    url: str = "mqtt://127.0.0.1:1883"
    user: str = ""
    password_file: str = ""
    ca: str = ""  # PEM; empty: the system's own
    cert: str = ""  # PEM of the device's certificate
    key: str = ""
    protocol: str = "auto"  # "5", "3.1.1", or "auto": 5, and 3.1.1 where the broker refuses it
    keepalive_s: int = 30
    client_id: str = ""  # empty: edgebit-<device>
    root: str = topics.DEFAULT_ROOT
    session_expiry_s: int = 300  # how long an MQTT 5 broker keeps requests for a device that is away
    queued_messages_max: int = 1000  # answers held while the broker is away
    auth: str = "open"  # "topic": the broker's access list ties the principal in a topic to the user name

    @property
    def host(self) -> str:
        """The broker's host."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfig:
    """[limits]: what a request may ask for."""

    queue_max: int = 8  # jobs waiting
    max_prompt_bytes: int = 65536  # of a request's payload
    max_packet_bytes: int = 1048576  # the broker keeps larger messages from us (MQTT 5)
    max_tokens: int = 2048  # of an answer
    default_ttl_s: int = 600  # deadline of a request that names none


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultsConfig:
    """[defaults]: sampling where a request does not say. None: what the model's makers advise, or else greedy."""

    max_tokens: int = 256
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """[engine]"""

    threads: int = 0  # 0: one for each big core
    ctx_len: int = 0  # tokens; 0: the model's own maximum, at most 2048
    kv: str = KV_TYPES[0]  # how the KV cache holds keys and values; int8 takes half the memory
    isa: str = ""  # highest ISA level that may be used; empty: the best this CPU has
    speculate: int = SPECULATE  # longest draft of next tokens that is tried; 0: none
    prefix_memory_mib: int = PREFIX_MEMORY_MIB  # what was computed for prompts, kept in memory
    prefix_disk_mib: int = 0  # the same on disk, in the state folder, as files that hold the prompts' tokens
    batch_len: int = 0  # tokens of a prefill pass; 0: 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """[report]: status and metrics."""

    interval_s: float = 30.0
    sensors_root: str = "/"  # where sys/ and proc/ lie


@dataclass(frozen=True, kw_only=True, slots=True)
class RepliesConfig:
    """[replies]: where answers may go beside the caller's own out topics."""

    allowed_prefixes: tuple[str, ...] = ()  # "clients/{principal}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The whole file."""

    device: DeviceConfig = field(default_factory=DeviceConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    replies: RepliesConfig = field(default_factory=RepliesConfig)

    @property
    def device_name(self) -> str:
        """The device's name in topics."""
        return self.device.name or topics.segment_of(socket.gethostname())

    def called(self, name: str | None) -> "Config":
        """The same under another name, made fit for topics; itself where there is none."""
        if not name:
            return self
        return dataclasses.replace(self, device=DeviceConfig(name=topics.segment_of(name)))

    @property
    def topics(self) -> topics.DeviceTopics:
        """The device's topics."""
        return topics.DeviceTopics(self.mqtt.root, self.device_name)


def read_config(path: Path) -> Config:
    """Read and check edgebitd.toml; file names in it count from its folder. Raises ConfigError naming the key."""
    return config_from(read_toml(path), str(path), path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """What edgebitd.toml says, not checked yet. Raises ConfigError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Write one as docs/daemon.md shows") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def config_from(content: dict[str, Any], where: str, folder: Path) -> Config:
    """The configuration that a parsed TOML file describes; `where` names it in messages.

    Raises ConfigError for unknown keys, wrong types, values out of range and files that are not there.
    """
    sections = {item.name: item for item in dataclasses.fields(Config)}
    if unknown := sorted(set(content) - set(sections)):
        raise ConfigError(f"{where}: unknown section [{unknown[0]}]; there are {', '.join(sections)}")
    made: dict[str, Any] = {}
    for name, item in sections.items():
        kind: Any = item.default_factory
        made[name] = _section(kind, content.get(name, {}), f"{where}: [{name}]")
    config = Config(**made)
    mqtt = _with_absolute_files(config.mqtt, folder)
    config = dataclasses.replace(config, mqtt=mqtt)
    _check(config, where)
    return config


def read_password(mqtt: MqttConfig) -> str | None:
    """The password in password_file without the line's end; None where none is configured."""
    if not mqtt.password_file:
        return None
    try:
        return Path(mqtt.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_file {mqtt.password_file} cannot be read: {error}") from error


def _section(kind: type[Any], content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a section")
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in types:
            raise ConfigError(f"{where}: unknown key {key!r}; there are {', '.join(types)}")
        values[key] = _value(types[key], value, f"{where}: {key}")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, UnionType):  # of one kind and None, which TOML cannot say
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list of strings")
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise ConfigError(f"{where} must be {words}, not {value!r}")
    return value


def _with_absolute_files(mqtt: MqttConfig, folder: Path) -> MqttConfig:
    def absolute(name: str) -> str:
        return str((folder / Path(name).expanduser()).absolute()) if name else ""

    return dataclasses.replace(
        mqtt,
        password_file=absolute(mqtt.password_file),
        ca=absolute(mqtt.ca),
        cert=absolute(mqtt.cert),
        key=absolute(mqtt.key),
    )


def _check(config: Config, where: str) -> None:
    mqtt = config.mqtt
    _check_url(mqtt.url, where)
    if mqtt.protocol not in ("auto", "5", "3.1.1"):
        raise ConfigError(f'{where}: [mqtt]: protocol is "5", "3.1.1" or "auto", not {mqtt.protocol!r}')
    if mqtt.auth not in ("open", "topic"):
        raise ConfigError(f'{where}: [mqtt]: auth is "open" or "topic", not {mqtt.auth!r}')
    if not topics.is_root(mqtt.root):
        raise ConfigError(f"{where}: [mqtt]: root {mqtt.root!r} is not made of levels of a-z 0-9 _ . -")
    if config.device.name and not topics.is_segment(config.device.name):
        raise ConfigError(
            f"{where}: [device]: name {config.device.name!r} is not 1 to 64 of a-z 0-9 _ . - "
            f"(try {topics.segment_of(config.device.name)!r})"
        )
    if config.engine.kv not in KV_TYPES:
        raise ConfigError(f"{where}: [engine]: kv is one of {', '.join(KV_TYPES)}, not {config.engine.kv!r}")
    if bool(mqtt.cert) != bool(mqtt.key):
        raise ConfigError(f"{where}: [mqtt]: cert and key go together")
    if (mqtt.ca or mqtt.cert) and not mqtt.tls:
        raise ConfigError(f"{where}: [mqtt]: ca and cert need an mqtts:// url")
    if mqtt.password_file and not mqtt.user:
        raise ConfigError(f"{where}: [mqtt]: password_file needs a user")
    for key in ("password_file", "ca", "cert", "key"):
        name = getattr(mqtt, key)
        if name and not os.access(name, os.R_OK):
            raise ConfigError(f"{where}: [mqtt]: {key}: {name} is not there or cannot be read")
    for section, key, lowest, highest in _RANGES:
        value = getattr(getattr(config, section), key)
        if value is not None and not lowest <= value <= highest:
            raise ConfigError(f"{where}: [{section}]: {key} is {value}, it must lie between {lowest} and {highest}")
    if config.defaults.max_tokens > config.limits.max_tokens:
        raise ConfigError(f"{where}: [defaults]: max_tokens is above max_tokens of [limits]")
    for prefix in config.replies.allowed_prefixes:
        if "{principal}" not in prefix or not prefix.endswith("/") or prefix.startswith("$") or set(prefix) & set("+#"):
            raise ConfigError(
                f"{where}: [replies]: {prefix!r} must hold {{principal}} and end with /, without + # and a first $"
            )


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: [mqtt]: url {url!r}: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or port == 0:
        raise ConfigError(f"{where}: [mqtt]: url {url!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    if parts.username is not None:
        raise ConfigError(f"{where}: [mqtt]: a url holds no user or password: use user and password_file")


_RANGES: tuple[tuple[str, str, float, float], ...] = (
    ("mqtt", "keepalive_s", 1, 3600),
    ("mqtt", "session_expiry_s", 0, 86400),
    ("mqtt", "queued_messages_max", 10, 65535),
    ("limits", "queue_max", 0, 1000),
    ("limits", "max_prompt_bytes", 64, 16 << 20),
    ("limits", "max_packet_bytes", 4096, 256 << 20),
    ("limits", "max_tokens", 1, 1 << 20),
    ("limits", "default_ttl_s", 1, 86400),
    ("defaults", "max_tokens", 1, 1 << 20),
    ("defaults", "temperature", 0, 10),
    ("defaults", "top_k", 0, 1 << 20),
    ("defaults", "top_p", 0.001, 1),
    ("defaults", "min_p", 0, 1),
    ("defaults", "repetition_penalty", 0.01, 100),
    ("defaults", "repetition_window", 1, 65536),
    ("engine", "threads", 0, 256),
    ("engine", "ctx_len", 0, 1 << 24),
    ("engine", "speculate", 0, MAX_DRAFT),
    ("engine", "prefix_memory_mib", 0, 1 << 20),
    ("engine", "prefix_disk_mib", 0, 1 << 20),
    ("engine", "batch_len", 0, 4096),
    ("report", "interval_s", 0.1, 86400),
)
