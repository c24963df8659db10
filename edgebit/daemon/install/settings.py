"""Writing edgebitd.toml on the device: settings from a deploy go in, everything else in it stays."""

import contextlib
import json
import os
import re
import shutil
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgebit.daemon.config.reader import config_from, read_config, read_toml
from edgebit.daemon.config.sections import PORTS, Config
from edgebit.errors import ConfigError

CONFIG_NAME = "edgebitd.toml"
PASSWORD_NAME = "mqtt.password"
BEFORE_NAME = "settings.before"  # a folder: the two files as they last proved themselves, while others are on trial
_FILES = (PASSWORD_NAME, CONFIG_NAME)

_RIGHTS = "Call it as the user that the folder and the file belong to, or as root"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def merge_settings(root: Path, settings: Mapping[str, Any]) -> Config:
    """Set `settings`, {section: {key: value}}, in the configuration of `root`, both files with mode 0600.

    The one setting that is no key is mqtt.password: it goes into a file of its own. A comment in the file is lost.
    Raises ConfigError, and then nothing has changed.
    """
    path = root / CONFIG_NAME
    content = read_toml(path) if path.exists() else {}
    for section, known in content.items():
        if not isinstance(known, dict):
            raise ConfigError(f"{path}: {section} must be a section, [{section}], not {known!r}")
    password = None
    for section, values in settings.items():
        known = content.get(section, {})
        merged = {**known, **values}
        if section == "mqtt":
            password = merged.pop("password", None)
            if "url" in values and "user" not in values:
                merged.pop("user", None)
            if "url" in values and _login({"user": "", **values}) != _login(known):
                merged.pop("password_file", None)  # the old password is not for another broker or user
            if password is not None:
                merged["password_file"] = PASSWORD_NAME
        content[section] = {key: value for key, value in merged.items() if value is not None}
    checked = {
        section: {key: value for key, value in values.items() if (section, key) != ("mqtt", "password_file")}
        if password is not None
        else values
        for section, values in content.items()
    }
    config_from(checked, CONFIG_NAME, root)
    if password is not None:
        _write_whole(root / PASSWORD_NAME, password + "\n")
    _write_whole(path, to_toml(content))
    config = read_config(path)
    if not config.mqtt.password_file:
        (root / PASSWORD_NAME).unlink(missing_ok=True)  # it belongs to the broker or the user before
    return config


def set_keys(path: Path, section: str, values: Mapping[str, Any]) -> bool:
    """Set keys of one section in the configuration `path`, whole or not at all; gives whether anything changed.

    All else stays, comments too where the section is written in the plain way. A new file has mode 0600, another keeps
    its own. Raises ConfigError, and then nothing has changed.
    """
    content = read_toml(path) if path.exists() else {}
    known = content.get(section, {})
    if not isinstance(known, dict):
        raise ConfigError(f"{path}: {section} must be a section, [{section}], not {known!r}")
    if all(known.get(key) == value and type(known.get(key)) is type(value) for key, value in values.items()):
        return False
    wanted = {**content, section: {**known, **values}}
    config_from(wanted, str(path), path.parent)
    text = _edited(path.read_text(encoding="utf-8") if path.exists() else "", section, values)
    try:
        if tomllib.loads(text) != wanted:
            text = to_toml(wanted)
    except tomllib.TOMLDecodeError:  # the section was written in another way than line by line
        text = to_toml(wanted)
    _write_whole(path, text, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600)
    return True


def _edited(text: str, section: str, values: Mapping[str, Any]) -> str:
    """`text` with the keys set line by line: right for a section with a header of its own; the caller checks it."""
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines) if line.split("#")[0].strip() == f"[{section}]"]
    if not headers:
        return "\n".join([*lines, *([""] if lines else []), to_toml({section: values})])
    begin = headers[0] + 1
    end = next((n for n in range(begin, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    for key, value in values.items():
        line = f"{_key(key)} = {_value(value, key)}"
        place = next((n for n in range(begin, end) if re.match(rf"\s*{re.escape(_key(key))}\s*=", lines[n])), None)
        if place is None:
            last = next(n for n in range(end - 1, begin - 2, -1) if lines[n].strip())
            lines.insert(last + 1, line)
            end += 1
        else:
            comment = re.search(r"\s+#[^\"']*$", lines[place])
            lines[place] = line + (comment[0] if comment else "")
    return "\n".join(lines) + "\n"


def set_aside(root: Path) -> None:
    """Keep the settings that are there until keep_settings() or restore_settings(), if nothing is kept yet."""
    before, new = root / BEFORE_NAME, root / f"{BEFORE_NAME}.new"
    if before.is_dir() or not (root / CONFIG_NAME).exists():
        return
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    for name in _FILES:
        if (root / name).exists():
            _write_whole(new / name, (root / name).read_text(encoding="utf-8", errors="surrogateescape"))
    new.replace(before)


def keep_settings(root: Path) -> None:
    """The settings of now have proved themselves."""
    before, gone = root / BEFORE_NAME, root / f"{BEFORE_NAME}.new"
    if before.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
        before.replace(gone)  # at once: half a folder would be brought back as if it were the whole
    shutil.rmtree(gone, ignore_errors=True)


def settings_on_trial(root: Path) -> bool:
    """Whether the settings have not proved themselves yet."""
    return (root / BEFORE_NAME).is_dir()


def count_start(root: Path, tries: int) -> bool:
    """Count a start with settings on trial; gives whether it is one of the first `tries`."""
    place = root / BEFORE_NAME / "starts"
    text = place.read_text() if place.exists() else ""
    starts = int(text) + 1 if text.strip().isdigit() else 1
    _write_whole(place, f"{starts}\n")
    return starts <= tries


def restore_settings(root: Path) -> bool:
    """Bring back what set_aside() kept; gives whether there was any. May be cut off, and called again."""
    before = root / BEFORE_NAME
    if not before.is_dir():
        return False
    for name in _FILES:
        if (before / name).exists():
            _write_whole(root / name, (before / name).read_text(encoding="utf-8", errors="surrogateescape"))
        else:
            (root / name).unlink(missing_ok=True)
    keep_settings(root)
    return True


def _login(mqtt: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which broker, and as whom."""
    parts = urlsplit(str(mqtt.get("url", "")))
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme), mqtt.get("user", "")


def to_toml(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of strings, numbers, booleans and lists of them, as TOML."""
    lines = []
    for section, values in content.items():
        lines.append(f"[{_key(section)}]")
        lines += [f"{_key(key)} = {_value(value, key)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _value(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_value(item, key) for item in value) + "]"
    raise ConfigError(f"{CONFIG_NAME}: {key} is of a kind that edgebit does not write: {value!r}")


def plain_file(path: Path) -> Path:
    """Where `path` leads, past links. Raises ConfigError where a device, a pipe or the like stands there."""
    place = path.resolve()
    if place.exists() and not place.is_file():
        raise ConfigError(f"{path} is no plain file, and would be read or replaced as one. Name another")
    return place


def check_writable(path: Path) -> None:
    """Raises ConfigError where `path` could not be written, before anything is done for its content."""
    if not os.path.isdir(path.parent):  # noqa: PTH112 - Path.is_dir() raises without rights to the folder above
        raise ConfigError(
            f"{path} cannot be written: there is no folder {path.parent}. Make it: mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written: {path.parent} is not yours to write in. {_RIGHTS}")


def _write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole or not at all. It stays its owner's, so that who read it still can; a new one is its folder's.

    Raises ConfigError, and then nothing has changed.
    """
    new = path.with_name(path.name + ".new")
    try:
        owner = (path if path.exists() else path.parent).stat()
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            _give(handle, owner)
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        mend = _RIGHTS if isinstance(error, PermissionError) else "Mend that, and call it again"
        raise ConfigError(f"{path} cannot be written: {error.strerror}. {mend}") from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def _give(handle: int, owner: os.stat_result) -> None:
    """To the owner, which only root may do for another; and to the group, where that is permitted."""
    if os.fstat(handle).st_uid != owner.st_uid:
        os.fchown(handle, owner.st_uid, -1)
    with contextlib.suppress(PermissionError):
        os.fchown(handle, -1, owner.st_gid)
