"""The sections of edgebitd.toml as frozen dataclasses, each key with its default and what it may be.

docs/daemon.md describes every key, in the same order. What a key may be stands beside it (fields.py), and is checked
when the file is read (reader.py).
"""

import dataclasses
import socket
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.daemon.config.fields import file_name, one_of, within
from edgebit.daemon.config.safeguards import (
    AdaptersConfig,
    ContentFilterConfig,
    IdentityConfig,
    PrivacyConfig,
    RateLimitsConfig,
)
from edgebit.daemon.contract import topics
from edgebit.runtime.abi import MAX_DRAFT
from edgebit.runtime.defaults import PREFIX_MEMORY_MIB
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.session import SPECULATE

PORTS = {"mqtt": 1883, "mqtts": 8883}


def is_broker_address(parts: SplitResult) -> bool:
    """Whether a URL is mqtt[s]://HOST[:PORT], whoever is named in it. Raises ValueError for a port that is none."""
    is_bare = parts.path in ("", "/") and not parts.query
    return parts.scheme in PORTS and bool(parts.hostname) and is_bare and parts.port != 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceConfig:
    """[device]"""

    name: str = ""  # empty: the host's name, made lower-case


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttConfig:
    """[mqtt]: the broker and how to reach it."""

    url: str = "mqtt://127.0.0.1:1883"
    user: str = ""
    password_file: str = file_name()
    ca: str = file_name()  # PEM; empty: the system's own
    cert: str = file_name()  # PEM of the device's certificate
    key: str = file_name()
    protocol: str = one_of("auto", "5", "3.1.1")  # "5", "3.1.1", or "auto": 5, and 3.1.1 where the broker refuses it
    keepalive_s: int = within(1, 3600, 30)
    client_id: str = ""  # empty: edgebit-<device>
    root: str = topics.DEFAULT_ROOT
    session_expiry_s: int = within(0, 86400, 300)  # how long an MQTT 5 broker keeps requests for a device that is away
    queued_messages_max: int = within(10, 65535, 1000)  # answers held while the broker is away
    auth: str = one_of("open", "topic", "broker-prop", "signed")  # what makes a name true (docs/privacy.md)

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

    queue_max: int = within(0, 100_000, 32)  # jobs waiting
    queue_per_principal_max: int = within(0, 1000, 16)  # of one principal
    max_prompt_bytes: int = within(64, 16 << 20, 65536)  # of a request's payload
    max_packet_bytes: int = within(4096, 256 << 20, 1048576)  # the broker keeps larger messages from us (MQTT 5)
    max_tokens: int = within(1, 1 << 20, 2048)  # of an answer
    max_batch: int = within(1, 256, 8)  # requests in a batch
    default_ttl_s: int = within(1, 86400, 600)  # deadline of a request that names none
    max_prompt_tokens: int = within(0, 1 << 20, 0)  # 0: as many as the context holds
    control_characters: str = one_of("refuse", "allow")  # in prompts, but for tab and line ends


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultsConfig:
    """[defaults]: sampling where a request does not say. None: what the model's makers advise, or else greedy."""

    max_tokens: int = within(1, 1 << 20, 256)
    temperature: float | None = within(0, 10, None)
    top_k: int | None = within(0, 1 << 20, None)
    top_p: float | None = within(0.001, 1, None)
    min_p: float | None = within(0, 1, None)
    repetition_penalty: float | None = within(0.01, 100, None)
    repetition_window: int | None = within(1, 65536, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """[engine]"""

    engine: str = one_of("native", "onnx")  # what computes: our own, or ONNX Runtime (foreign_engine.py)
    onnx_folder: str = file_name()  # what `edgebit export onnx` wrote of the bundle's model
    threads: int = within(0, 256, 0)  # 0: one for each big core
    ctx_len: int = within(0, SIZE_MAX["context_max"], 0)  # tokens; 0: the model's own maximum, at most 2048
    kv: str = one_of(*KV_TYPES)  # how the KV cache holds keys and values; int8 takes half the memory
    isa: str = ""  # highest ISA level that may be used; empty: the best this CPU has
    speculate: int = within(0, MAX_DRAFT, SPECULATE)  # longest draft of next tokens that is tried; 0: none
    prefix_memory_mib: int = within(0, 1 << 20, PREFIX_MEMORY_MIB)  # what was computed for prompts, kept in memory
    prefix_disk_mib: int = within(
        0, 1 << 20, 0
    )  # the same on disk, in the state folder, as files that hold the prompts' tokens
    batch_len: int = within(0, 4096, 0)  # tokens of a prefill pass; 0: 128
    aliases: tuple[str, ...] = ()  # other names under which requests may ask for the model
    sequences: int = within(0, 64, 0)  # answers in the making at once; 0: 4, or fewer where memory is short


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingConfig:
    """[serving]: how several jobs share the engine."""

    stall_ms: int = within(1, 60_000, 250)  # how long a pass may compute new prompts while answers wait for a token
    drain_s: float = within(0, 25, 10.0)  # what can be finished within it when the daemon is stopped, is
    warm_up: bool = True  # answer a prompt of our own first, so that no caller waits for pages of the model
    share_prefixes: bool = False  # whether what was computed for one principal may serve another
    answer_cache_mib: int = within(0, 1 << 16, 1)  # answers that are certain to come again the same; 0: none are kept
    answer_cache_s: float = within(1, 30 * 86400, 3600.0)  # how long
    sessions_max: int = within(0, 1 << 16, 32)  # conversations remembered, of all principals; 0: none
    session_idle_s: float = within(1, 30 * 86400, 3600.0)  # how long one is in which nothing is said


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """[report]: status and metrics."""

    interval_s: float = within(0.1, 86400, 30.0)
    sensors_root: str = "/"  # where sys/ and proc/ lie


@dataclass(frozen=True, kw_only=True, slots=True)
class GovernorConfig:
    """[governor]: heat, voltage, battery and memory (docs/heat.md)."""

    mode: str = one_of("speed", "temperature", "off")  # "temperature" keeps to target_c, at the price of speed
    target_c: float = within(30, 105, 78.0)  # with "speed" only what `hot` means
    stop_c: float = within(35, 110, 90.0)  # from here on no new work
    battery_pool: float = within(0, 90, 30.0)  # %, on battery: below it the device leaves its pool
    battery_work: float = within(0, 90, 10.0)  # %, on battery: below it no new work
    memory_pressure: float = within(1, 100, 20.0)  # % of the time in which all waits for memory: above it no new work
    rest_s: float = within(0, 3600, 30.0)  # all well for so long, until it is as before


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorsConfig:
    """[sensors]: how they are read; where they lie is [report] sensors_root."""

    interval_s: float = within(0.1, 60, 1.0)  # between two looks at what changes fast
    command_s: float = within(0.1, 60, 2.0)  # how long a program that is asked (vcgencmd) may take


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerConfig:
    """[power]: what the device draws."""

    source: str = one_of("auto", "serial", "ina", "battery", "rapl", "pmic", "none")  # auto: the first that is there
    interval_s: float = within(0.05, 60, 0.2)  # between two looks while the engine works
    device: str = ""  # of several INA chips or channels this one: its label, or its address such as "1-0040"
    port: str = ""  # of a serial meter: "/dev/ttyUSB0"; empty: there is none
    meter: str = one_of("line", "um24c", "um25c", "um34c")  # what the serial meter speaks
    baud: int = within(0, 4_000_000, 0)  # 0: what that meter has from its maker
    calibration: tuple[float, ...] = ()  # two points in W: reading, truth, reading, truth
    error: float = within(0, 1, 0.0)  # how far off the source may be, of its reading; 0: as its kind is known for


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalConfig:
    """[journal]: the file in the state folder that remembers jobs over a crash, and answers for who asks again."""

    size_mib: int = within(1, 256, 4)
    keep_s: int = within(60, 7 * 86400, 600)  # how long an answer is kept
    answers_max: int = within(16, 65536, 256)  # how many are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryConfig:
    """[history]: figures kept on disk."""

    interval_s: float = within(1, 3600, 30.0)  # between two snapshots
    hours: float = within(0, 24 * 366, 24.0)  # kept at least, as long as max_bytes allow; 0: none
    max_bytes: int = within(65536, 1 << 24, 1 << 20)  # all of it is read for a question of it
    write_s: float = within(1, 3600, 300.0)  # written so often: what is newer is lost with the power


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertsConfig:
    """[alerts]: thresholds, of which 0 switches a level off, and for how long they must be passed."""

    memory_warning_percent: float = within(0, 100, 90.0)  # of the device's memory that is not available
    memory_critical_percent: float = within(0, 100, 95.0)
    cpu_warning_percent: float = within(0, 100, 95.0)  # of all cores, over ten times raise_s
    cpu_critical_percent: float = within(0, 100, 0.0)
    speed_warning_tok_s: float = within(0, 1e6, 0.0)  # below
    speed_critical_tok_s: float = within(0, 1e6, 0.0)
    errors_warning_percent: float = within(0, 100, 10.0)
    errors_critical_percent: float = within(0, 100, 50.0)
    latency_warning_ms: float = within(0, 1e9, 0.0)  # 95th percentile
    latency_critical_ms: float = within(0, 1e9, 0.0)
    heat_warning_c: float = within(0, 150, 80.0)
    heat_critical_c: float = within(0, 150, 85.0)
    disk_warning_mib: float = within(0, 1e9, 200.0)  # below
    disk_critical_mib: float = within(0, 1e9, 50.0)
    certificate_warning_days: float = within(0, 3650, 30.0)  # below
    raise_s: float = within(0, 86400, 60.0)  # beyond the threshold for so long, and the alert is raised
    clear_s: float = within(0, 86400, 120.0)  # back on the good side for so long, and it is cleared


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthConfig:
    """[health]: does the device work, and work right?"""

    probe_interval_s: float = within(0, 30 * 86400, 21600.0)  # between runs of the golden probes when idle; 0: none
    step_max_s: float = within(1, 86400, 120.0)  # an engine that makes no step for so long is taken to hang


@dataclass(frozen=True, kw_only=True, slots=True)
class PrometheusConfig:
    """[prometheus]: figures for a scraper, over HTTP."""

    listen: str = ""  # "127.0.0.1:9464"; empty: no port


@dataclass(frozen=True, kw_only=True, slots=True)
class RepliesConfig:
    """[replies]: where answers may go beside the caller's own out topics."""

    allowed_prefixes: tuple[str, ...] = ()  # "clients/{principal}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """[pool]: requests that any of several devices may answer, and when this one does not."""

    names: tuple[str, ...] = ()  # of the pools the device is in
    leave_queue: int = within(1, 100_000, 4)  # jobs waiting at which it leaves them
    rejoin_queue: int = within(0, 100_000, 1)  # jobs waiting at which it may come back
    rejoin_s: float = within(0, 3600, 5.0)  # for how long all must be well before it does


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeAssistantConfig:
    """[home_assistant]: the device as entities there, over the same broker."""

    enabled: bool = False
    prefix: str = "homeassistant"  # of its discovery topics
    birth_topic: str = "homeassistant/status"  # where it says that it has started; empty: not listened to
    birth_delay_s: float = within(0, 600, 10)  # after that, at most: not all devices speak in its first second
    principal: str = "homeassistant"  # whom its questions come from

    @property
    def listen(self) -> tuple[str, ...]:
        """What has to be heard beside requests."""
        return (self.birth_topic,) if self.enabled and self.birth_topic else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AssistantConfig:
    """[assistant]: what the operation `assist` says and calls for (docs/mqtt.md)."""

    devices: tuple[str, ...] = ()  # names of all that a call may be for; empty: any


@dataclass(frozen=True, kw_only=True, slots=True)
class WyomingConfig:
    """[wyoming]: a port that Home Assistant's voice assistant talks to. It knows no passwords."""

    listen: str = ""  # HOST:PORT; empty: no port
    allow: tuple[str, ...] = ()  # addresses and networks that may connect; empty: all
    languages: tuple[str, ...] = ("en",)  # that are offered to Home Assistant
    system: str = "Answer in one or two short sentences of plain text: they are read aloud."
    max_tokens: int = within(1, 1 << 20, 128)  # of an answer
    timeout_s: float = within(1, 3600, 60)  # of an answer
    connections_max: int = within(1, 256, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The whole file."""

    device: DeviceConfig = field(default_factory=DeviceConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    adapters: AdaptersConfig = field(default_factory=AdaptersConfig)
    assistant: AssistantConfig = field(default_factory=AssistantConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    governor: GovernorConfig = field(default_factory=GovernorConfig)
    sensors: SensorsConfig = field(default_factory=SensorsConfig)
    power: PowerConfig = field(default_factory=PowerConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)
    replies: RepliesConfig = field(default_factory=RepliesConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    home_assistant: HomeAssistantConfig = field(default_factory=HomeAssistantConfig)
    wyoming: WyomingConfig = field(default_factory=WyomingConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    rate_limits: RateLimitsConfig = field(default_factory=RateLimitsConfig)
    content_filter: ContentFilterConfig = field(default_factory=ContentFilterConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

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
