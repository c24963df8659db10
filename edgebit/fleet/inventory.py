"""The inventory of a fleet, fleet.toml, read into frozen dataclasses. docs/fleet.md describes every key.

Unknown keys, groups that are not declared, and secrets are refused, so that a slip of the pen leaves out no device and
a password stays in a file of its own.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.topics import is_device, segment_of
from edgebit.deploy.plan import SERVICES
from edgebit.errors import BrokerError, ConfigError
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.resources import config_dir
from edgebit.transport import TRANSPORTS, Options, no_way

FILE_NAME = "fleet.toml"
ALL = "all"  # the group that every device is in

# What [defaults], a group and a device may say, and what a device alone.
_SHARED = ("root", "mqtt", "mqtt_password_file", "service", "ssh_config", "ssh_options", "labels", "settings")
_DEVICE_ONLY = ("url", "groups", "device_name")
_OWN_KEYS = {("mqtt", "url"): "mqtt", ("mqtt", "user"): "mqtt", ("device", "name"): "device_name"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetDevice:
    """One device of an inventory, with what [defaults] and its groups say of it."""

    name: str  # in the inventory
    url: str  # the way to it, for open_transport()
    device_name: str  # in topics
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    root: str | None = None
    mqtt: str | None = None  # its broker, as it sees it: mqtt[s]://[USER@]HOST[:PORT]
    mqtt_password_file: Path | None = None
    service: str | None = None
    ssh_config: Path | None = None
    ssh_options: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # others, for its edgebitd.toml

    @property
    def way(self) -> Options:
        """How it is reached; ssh never asks anything, since many devices cannot ask at once."""
        options = (*self.ssh_options, "BatchMode=yes")
        return Options(root=self.root, ssh_config=self.ssh_config, ssh_options=options)

    def daemon_settings(self, password: str | None = None) -> dict[str, dict[str, Any]]:
        """What goes into its edgebitd.toml; `password` is the broker's where no file is named.

        Raises ConfigError where the password file cannot be read.
        """
        made: dict[str, dict[str, Any]] = {section: dict(values) for section, values in self.settings.items()}
        made.setdefault("device", {})["name"] = self.device_name
        if self.mqtt is not None:
            broker = parse_broker_url(self.mqtt)
            mqtt = made.setdefault("mqtt", {})
            mqtt["url"] = str(broker)
            if broker.user is not None:
                mqtt["user"] = broker.user
                mqtt["password"] = self._password() if self.mqtt_password_file else password
        return made

    def _password(self) -> str:
        assert self.mqtt_password_file is not None
        try:
            return (self.mqtt_password_file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.name}: the password file {self.mqtt_password_file} cannot be read: {error}. Write it, mode 0600"
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """A whole fleet."""

    path: Path
    devices: tuple[FleetDevice, ...]  # in the file's order
    groups: tuple[str, ...]

    def select(
        self, groups: Sequence[str] = (), labels: Iterable[tuple[str, str]] = (), names: Sequence[str] = ()
    ) -> tuple[FleetDevice, ...]:
        """The devices in any of `groups` or with any of `names` (all of them where neither is given) and every label.

        Raises ConfigError for a group or name that there is not, and where nothing is left.
        """
        for group in groups:
            if group != ALL and group not in self.groups:
                raise ConfigError(f"{self.path} has no group {group!r}; there are {', '.join((*self.groups, ALL))}")
        known = {device.name for device in self.devices}
        for name in names:
            if name not in known:
                raise ConfigError(f"{self.path} has no device {name!r}; there are {_some(sorted(known))}")
        everyone = ALL in groups or not (groups or names)
        wanted = dict(labels)
        chosen = tuple(
            device
            for device in self.devices
            if (everyone or device.name in names or set(groups) & set(device.groups))
            and all(device.labels.get(key) == value for key, value in wanted.items())
        )
        if not chosen:
            raise ConfigError(f"{self.path}: no device is what was asked for. `edgebit fleet list` shows them all")
        return chosen


def find_inventory(named: Path | None) -> Path:
    """The inventory's file: the one named, ./fleet.toml, or edgebit/fleet.toml in the user's configuration folder.

    Raises ConfigError where there is none.
    """
    if named is not None:
        return named
    places = (Path(FILE_NAME), config_dir() / FILE_NAME)
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"there is no inventory: neither ./{FILE_NAME} nor {places[1]}. Write one as docs/fleet.md shows, or name it:"
        " --inventory FILE"
    )


def read_inventory(path: Path) -> Inventory:
    """Read and check an inventory; file names in it count from its folder. Raises ConfigError naming file and key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Write one as docs/fleet.md shows") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return _Reader(path).inventory(content)


class _Reader:
    """Checks an inventory's content; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.absolute().parent

    def inventory(self, content: Mapping[str, Any]) -> Inventory:
        self._known(content, ("defaults", "groups", "devices"), "the top level")
        defaults = self._layer(content.get("defaults", {}), "[defaults]")
        groups = {
            name: self._layer(layer, f"[groups.{name}]")
            for name, layer in self._table(content.get("groups", {}), "[groups]").items()
        }
        if ALL in groups:
            raise self._wrong(f"[groups.{ALL}]", "every device is in this group already; say it under [defaults]")
        devices = tuple(
            self._device(name, layer, defaults, groups)
            for name, layer in self._table(content.get("devices", {}), "[devices]").items()
        )
        if not devices:
            raise self._wrong("[devices]", 'there is none. Write [devices.NAME] with url = "ssh://USER@HOST"')
        self._refuse_twins(devices)
        return Inventory(path=self._path, devices=devices, groups=tuple(groups))

    def _device(
        self, name: str, content: Any, defaults: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
    ) -> FleetDevice:
        where = f"[devices.{name}]"
        own = self._layer(content, where, _DEVICE_ONLY)
        if not is_device(name):
            raise self._wrong(where, f"a device is called 1 to 64 of a-z 0-9 _ . - (try {segment_of(name)!r})")
        if "url" not in own:
            raise self._wrong(where, 'url is missing, such as url = "ssh://pi@raspberrypi.local"')
        for group in own.get("groups", ()):
            if group not in groups:
                raise self._wrong(where, f"there is no group {group!r}. Declare it: [groups.{group}]")
        layers = [own, *(groups[group] for group in own.get("groups", ())), defaults]
        made: dict[str, Any] = {}
        for key in _SHARED:
            given = [layer[key] for layer in layers if key in layer]
            if not given:
                continue
            if key == "ssh_options":  # OpenSSH takes the first of its options that is set twice
                made[key] = tuple(option for options in given for option in options)
            elif key == "labels":
                made[key] = {label: value for labels in reversed(given) for label, value in labels.items()}
            elif key == "settings":
                made[key] = _merged(reversed(given))
            elif key == "mqtt_password_file":  # a password is not for another broker or user than it was named with
                nearer = layers[: next((n for n, layer in enumerate(layers) if "mqtt" in layer), 0) + 1]
                made[key] = next((layer[key] for layer in nearer if key in layer), None)
            else:
                made[key] = given[0]
        device = FleetDevice(
            name=name,
            url=own["url"],
            groups=own.get("groups", ()),
            device_name=own.get("device_name", name),
            **made,
        )
        user = parse_broker_url(device.mqtt).user if device.mqtt else None
        if "mqtt_password_file" in own and user is None:
            raise self._wrong(where, "mqtt_password_file goes with mqtt = mqtt://USER@HOST")
        return device

    def _layer(self, content: Any, where: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
        """One table of settings, checked and with paths made absolute."""
        table = dict(self._table(content, where))
        self._known(table, (*more, *_SHARED), where)
        for key, value in table.items():
            table[key] = self._value(key, value, f"{where}: {key}")
        return table

    def _value(self, key: str, value: Any, where: str) -> Any:
        if key in ("ssh_options", "groups"):
            return self._texts(value, where)
        if key == "labels":
            for label, text in self._table(value, where).items():
                if not isinstance(text, str):
                    raise self._wrong(f"{where}.{label}", f"a label is a string, not {text!r}")
            return dict(value)
        if key == "settings":
            return self._settings(value, where)
        if not isinstance(value, str) or not value:
            raise self._wrong(where, f"must be a string, not {value!r}")
        if key in ("mqtt_password_file", "ssh_config"):
            return self._folder / Path(value).expanduser()
        if key == "url":
            return self._url(value, where)
        if key == "mqtt":
            return self._broker(value, where)
        if key == "service" and value not in SERVICES:
            raise self._wrong(where, f"is one of {', '.join(SERVICES)}, not {value!r}")
        if key == "device_name" and not is_device(value):
            raise self._wrong(where, f"{value!r} is not 1 to 64 of a-z 0-9 _ . - (try {segment_of(value)!r})")
        return value

    def _url(self, url: str, where: str) -> str:
        scheme, colon, rest = url.partition(":")
        if not colon or scheme not in TRANSPORTS:
            raise self._wrong(where, no_way(url))
        if scheme == "local" and rest and not rest.startswith("//"):
            return f"local:{self._folder / Path(rest).expanduser()}"
        try:
            password = urlsplit(url).password
        except ValueError as error:
            raise self._wrong(where, f"{url!r}: {error}") from error
        if password is not None:
            raise self._wrong(where, "a password does not belong here. Give the device your key: ssh-copy-id USER@HOST")
        return url

    def _broker(self, url: str, where: str) -> str:
        try:
            broker = parse_broker_url(url)
        except BrokerError as error:
            raise self._wrong(where, str(error)) from error
        if broker.password is not None:
            raise self._wrong(where, "a password does not belong here. Put it into a file: mqtt_password_file = FILE")
        return url

    def _settings(self, value: Any, where: str) -> dict[str, dict[str, Any]]:
        """Sections and keys as edgebitd.toml has them; the device checks the values."""
        sections = get_type_hints(Config)
        made = {}
        for section, values in self._table(value, where).items():
            if section not in sections:
                raise self._wrong(where, f"unknown section {section!r}; there are {', '.join(sections)}")
            keys = [item.name for item in dataclasses.fields(sections[section])]
            for key in self._table(values, f"{where}.{section}"):
                if (section, key) in _OWN_KEYS:
                    own = _OWN_KEYS[section, key]
                    raise self._wrong(f"{where}.{section}.{key}", f"an inventory says this with {own} = ...")
                if (section, key) == ("mqtt", "password"):
                    raise self._wrong(
                        f"{where}.mqtt.password", "put it into a file, and name that: mqtt_password_file = FILE"
                    )
                if key not in keys:
                    raise self._wrong(f"{where}.{section}", f"unknown key {key!r}; there are {', '.join(keys)}")
            made[section] = dict(values)
        return made

    def _refuse_twins(self, devices: Sequence[FleetDevice]) -> None:
        """Two entries for one place, or two devices with one name at one broker, would undo each other."""
        places: dict[tuple[str, str | None], str] = {}
        names: dict[tuple[str | None, str], str] = {}
        for device in devices:
            place, name = (device.url, device.root), (device.mqtt, device.device_name)
            if place in places:
                raise self._wrong(f"[devices.{device.name}]", f"is the same place as [devices.{places[place]}]")
            if name in names:
                raise self._wrong(
                    f"[devices.{device.name}]",
                    f"has the same device_name and broker as [devices.{names[name]}]. Give it its own",
                )
            places[place] = names[name] = device.name

    def _known(self, table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        for key in table:
            if key not in keys:
                raise self._wrong(where, f"unknown key {key!r}; there are {', '.join(keys)}")

    def _table(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(where, f"must be a table, not {value!r}")
        return value

    def _texts(self, value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(where, f"must be a list of strings, not {value!r}")
        return tuple(value)

    def _wrong(self, where: str, what: str) -> ConfigError:
        return ConfigError(f"{self._path}: {where}: {what}")


def _merged(layers: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            made.setdefault(section, {}).update(values)
    return made


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
