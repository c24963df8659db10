"""From edgebitd.toml to the sections: types, ranges, files, and what must fit together.

An unknown key is refused, so a slip of the pen cannot become a default.
"""

import dataclasses
import ipaddress
import math
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from edgebit.daemon.config import fields
from edgebit.daemon.config.foreign_engine import foreign_engine_fault
from edgebit.daemon.config.safeguards import identity_fault
from edgebit.daemon.config.secret_files import SECRET_WORDS, read_secret, too_open
from edgebit.daemon.config.sections import AlertsConfig, Config, MqttConfig, PowerConfig, is_broker_address
from edgebit.daemon.contract import topics
from edgebit.errors import ConfigError


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
        section = _section(kind, content.get(name, {}), f"{where}: [{name}]")
        try:
            made[name] = dataclasses.replace(section, **fields.with_absolute_files(section, folder))
        except ConfigError as error:
            raise ConfigError(f"{where}: [{name}]: {error}") from error
    config = Config(**made)
    _check(config, where)
    return config


def read_password(mqtt: MqttConfig) -> str | None:
    """The first line of password_file; None where none is configured. Raises ConfigError."""
    if not mqtt.password_file:
        return None
    return read_secret(mqtt.password_file, "password_file")


def open_secrets(config: Config) -> list[str]:
    """Secrets that others on this machine may read, in words."""
    files = (config.mqtt.password_file, config.mqtt.key)
    return [words for name in files if name and (words := too_open(Path(name)))]


def _section(kind: type[Any], content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a section")
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in types:
            if any(word in key.lower() for word in SECRET_WORDS):
                raise ConfigError(f"{where}: {key}: no secret stands in a configuration: see password_file of [mqtt]")
            raise ConfigError(f"{where}: unknown key {key!r}; there are {', '.join(types)}")
        values[key] = _value(types[key], value, f"{where}: {key}")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, UnionType):  # of one kind and None, which TOML cannot say
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            words = {str: "strings", float: "numbers"}[get_args(kind)[0]]
            raise ConfigError(f"{where} must be a list of {words}")
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise ConfigError(f"{where} must be {words}, not {value!r}")
    return value


def _check(config: Config, where: str) -> None:
    mqtt = config.mqtt
    _check_url(mqtt.url, where)
    if not topics.is_root(mqtt.root):
        raise ConfigError(f"{where}: [mqtt]: root {mqtt.root!r} is not made of levels of a-z 0-9 _ . -")
    if config.device.name and not topics.is_device(config.device.name):
        raise ConfigError(
            f"{where}: [device]: name {config.device.name!r} is not 1 to 64 of a-z 0-9 _ . - "
            f"(try {topics.segment_of(config.device.name)!r})"
        )
    if bool(mqtt.cert) != bool(mqtt.key):
        raise ConfigError(f"{where}: [mqtt]: cert and key go together")
    if (mqtt.ca or mqtt.cert) and not mqtt.tls:
        raise ConfigError(f"{where}: [mqtt]: ca and cert need an mqtts:// url")
    if mqtt.password_file and not mqtt.user:
        raise ConfigError(f"{where}: [mqtt]: password_file needs a user")
    for section in dataclasses.fields(config):
        if why := fields.fault(getattr(config, section.name)):
            raise ConfigError(f"{where}: [{section.name}]: {why}")
    if why := foreign_engine_fault(config.engine):
        raise ConfigError(f"{where}: [engine]: {why}")
    _check_power(config.power, where)
    _check_alerts(config.alerts, where)
    if config.defaults.max_tokens > config.limits.max_tokens:
        raise ConfigError(f"{where}: [defaults]: max_tokens is above max_tokens of [limits]")
    if config.governor.stop_c < config.governor.target_c + 5:
        raise ConfigError(f"{where}: [governor]: stop_c must lie 5 or more above target_c")
    if why := identity_fault(config.identity, mqtt.auth, mqtt.protocol):
        raise ConfigError(f"{where}: {why}")
    for prefix in config.replies.allowed_prefixes:
        if "{principal}" not in prefix or not prefix.endswith("/") or prefix.startswith("$") or set(prefix) & set("+#"):
            raise ConfigError(
                f"{where}: [replies]: {prefix!r} must hold {{principal}} and end with /, without + # and a first $"
            )
    try:
        host_and_port(config.prometheus.listen or "localhost:0")
    except ValueError as error:
        raise ConfigError(f"{where}: [prometheus]: {error}") from error
    _check_pool(config, where)
    _check_home(config, where)


def _check_pool(config: Config, where: str) -> None:
    pool = config.pool
    for name in pool.names:
        if not topics.is_segment(name):
            raise ConfigError(
                f"{where}: [pool]: name {name!r} is not 1 to 64 of a-z 0-9 _ . - (try {topics.segment_of(name)!r})"
            )
    if len(set(pool.names)) < len(pool.names):
        raise ConfigError(f"{where}: [pool]: a name stands twice in names")
    if pool.names and config.mqtt.auth == "signed":
        raise ConfigError(f"{where}: [pool]: a signed request is made for one device: no pools with that auth")
    if pool.rejoin_queue >= pool.leave_queue:
        raise ConfigError(f"{where}: [pool]: rejoin_queue must be below leave_queue, or the device comes and goes")
    if pool.names and pool.leave_queue > config.limits.queue_max:
        raise ConfigError(
            f"{where}: [pool]: leave_queue is above queue_max of [limits], where requests are refused already"
        )


def _check_home(config: Config, where: str) -> None:
    home, wyoming = config.home_assistant, config.wyoming
    for key in ("prefix", "birth_topic"):
        topic = getattr(home, key)
        if (
            set(topic) & set("+#\0")
            or topic.startswith("$")
            or topic.strip("/") != topic
            or (not topic and key == "prefix")
        ):
            raise ConfigError(f"{where}: [home_assistant]: {key} {topic!r} is no topic: no + #, no $ or / at its ends")
    if not topics.is_principal(home.principal):
        raise ConfigError(f"{where}: [home_assistant]: principal {home.principal!r} is not letters, digits and _ . @ -")
    if not wyoming.listen:
        return
    try:
        host_and_port(wyoming.listen)
        for network in wyoming.allow:
            ipaddress.ip_network(network)
    except ValueError as error:
        raise ConfigError(f"{where}: [wyoming]: {error}") from error
    if not wyoming.languages:
        raise ConfigError(f'{where}: [wyoming]: languages is empty, Home Assistant wants one at least: ["en"]')
    if wyoming.max_tokens > config.limits.max_tokens:
        raise ConfigError(f"{where}: [wyoming]: max_tokens is above max_tokens of [limits]")


def host_and_port(listen: str) -> tuple[str, int]:
    """The two of HOST:PORT; an IPv6 address stands in brackets. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"listen {listen!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def _check_power(power: PowerConfig, where: str) -> None:
    if power.source == "serial" and not power.port:
        raise ConfigError(f'{where}: [power]: source "serial" needs a port, such as "/dev/ttyUSB0"')
    points = power.calibration
    if not points:
        return
    if power.source == "auto":
        raise ConfigError(f"{where}: [power]: calibration belongs to one source: name it with source")
    rising = len(points) == 4 and (points[2] - points[0]) * (points[3] - points[1]) > 0
    if not rising or not all(map(math.isfinite, points)):
        raise ConfigError(
            f"{where}: [power]: calibration is two points in W, as read and as it truly was, of which the second is "
            "higher in both: [3.1, 4.2, 6.0, 7.5]"
        )


def _check_alerts(alerts: AlertsConfig, where: str) -> None:
    """Of two levels that are both on, the warning comes first."""
    for name, unit, is_below in (
        ("memory", "percent", False),
        ("cpu", "percent", False),
        ("errors", "percent", False),
        ("latency", "ms", False),
        ("heat", "c", False),
        ("speed", "tok_s", True),
        ("disk", "mib", True),
    ):
        keys = f"{name}_warning_{unit}", f"{name}_critical_{unit}"
        warning, critical = (getattr(alerts, key) for key in keys)
        if warning and critical and (warning < critical if is_below else warning > critical):
            raise ConfigError(f"{where}: [alerts]: {keys[0]} is beyond {keys[1]}: the warning comes first (0: none)")


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = is_broker_address(parts)
    except ValueError as error:
        raise ConfigError(f"{where}: [mqtt]: url {url!r}: {error}") from error
    if not is_address:
        raise ConfigError(f"{where}: [mqtt]: url {url!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    if parts.username is not None:
        raise ConfigError(f"{where}: [mqtt]: a url holds no user or password: use user and password_file")
