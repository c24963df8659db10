"""edgebitd.toml as a deploy writes it."""

import errno
import os
import tomllib

import pytest

from edgebit.cli.deploy import mqtt_settings
from edgebit.daemon.config.reader import read_password
from edgebit.daemon.install.agent import refuse_mute
from edgebit.daemon.install.settings import check_writable, merge_settings, set_keys, to_toml
from edgebit.errors import BrokerError, ConfigError, DeployError


def test_first_settings(tmp_path):
    """Both files are their owner's alone, and the password stands in its own."""
    config = merge_settings(
        tmp_path,
        {"mqtt": {"url": "mqtts://broker:1", "user": "pi", "password": 'p"ä\\'}, "device": {"name": "kitchen"}},
    )

    assert (config.device_name, config.mqtt.user, read_password(config.mqtt)) == ("kitchen", "pi", 'p"ä\\')
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "edgebitd.toml": 0o600,
        "mqtt.password": 0o600,
    }
    assert "ä" not in (tmp_path / "edgebitd.toml").read_text()


def test_other_settings_stay(tmp_path):
    """What the user wrote is kept; a new broker does not get the old one's password."""
    (tmp_path / "mqtt.password").write_text("old\n")
    (tmp_path / "edgebitd.toml").write_text(
        '[engine]\nthreads = 3\n[mqtt]\nurl = "mqtt://old"\nuser = "me"\npassword_file = "mqtt.password"\n'
        "keepalive_s = 9\n"
    )

    merge_settings(tmp_path, {"mqtt": {"url": "mqtt://new"}})

    assert tomllib.loads((tmp_path / "edgebitd.toml").read_text()) == {
        "engine": {"threads": 3},
        "mqtt": {"url": "mqtt://new", "keepalive_s": 9},
    }
    assert not (tmp_path / "mqtt.password").exists()


def test_a_model_without_a_tokenizer_is_refused():
    """The self-test says how to mend it."""
    refuse_mute({"TOKN": None, "DATA": None})

    with pytest.raises(DeployError, match=r"no tokenizer.*Build it again"):
        refuse_mute({"DATA": None})


@pytest.mark.parametrize(
    ("url", "user", "kept"),
    [
        ("mqtt://old:1883", "me", True),
        ("mqtt://old:1884", "me", False),
        ("mqtts://old", "me", False),
        ("mqtt://new", "me", False),
        ("mqtt://old", "you", False),
    ],
)
def test_a_password_goes_to_its_own_broker_and_user_only(tmp_path, url, user, kept):
    """A deploy that names no password keeps the old one for the same login, and sends it to no other."""
    merge_settings(tmp_path, {"mqtt": {"url": "mqtt://old", "user": "me", "password": "secret"}})

    config = merge_settings(tmp_path, {"mqtt": {"url": url, "user": user, "password": None}})

    assert (read_password(config.mqtt) == "secret") is kept


@pytest.mark.parametrize("text", ["mqtt = 3\n", "[mqtt\n", "\xff"])
def test_a_broken_file_on_the_device_is_named(tmp_path, text):
    """The one who wrote it can mend it; nothing is overwritten."""
    (tmp_path / "edgebitd.toml").write_text(text, encoding="latin-1")

    with pytest.raises(ConfigError, match=r"edgebitd\.toml"):
        merge_settings(tmp_path, {"mqtt": {"url": "mqtt://broker"}})

    assert (tmp_path / "edgebitd.toml").read_text(encoding="latin-1") == text


def test_wrong_settings_change_nothing(tmp_path):
    """A configuration that the daemon would refuse is not written."""
    merge_settings(tmp_path, {"mqtt": {"url": "mqtt://broker"}})
    before = (tmp_path / "edgebitd.toml").read_bytes()

    with pytest.raises(ConfigError, match="Pi 5"):
        merge_settings(tmp_path, {"device": {"name": "Pi 5"}})

    assert (tmp_path / "edgebitd.toml").read_bytes() == before


@pytest.mark.parametrize("text", ["plain", 'q"uote', "back\\slash", "new\nline", "tab\t", "\x7f\x01", "日本 🎈", ""])
def test_written_toml_reads_back(text):
    """Any text survives, in values and lists."""
    content = {"s": {"a": text, "b": [text, text], "c": 1.5, "d": True, "e": -3}}

    assert tomllib.loads(to_toml(content)) == content


def test_url_is_taken_apart(monkeypatch, tmp_path):
    """User and port are found; the password comes from its file."""
    (tmp_path / "pw").write_text("secret\nnot this\n")

    settings = mqtt_settings("mqtts://p%40i@[::1]:8884", tmp_path / "pw", "kitchen")

    assert settings == {
        "mqtt": {"url": "mqtts://[::1]:8884", "user": "p@i", "password": "secret"},
        "device": {"name": "kitchen"},
    }


def test_password_from_the_environment(monkeypatch):
    """So that it is in no list of processes."""
    monkeypatch.setenv("EDGEBIT_MQTT_PASSWORD", "secret")

    assert mqtt_settings("mqtt://pi@broker", None, None)["mqtt"]["password"] == "secret"


@pytest.mark.parametrize("url", ["broker", "http://broker", "mqtt://", "mqtt://broker/path", "mqtt://broker:x"])
def test_wrong_broker_is_refused(url):
    """With the form it should have."""
    with pytest.raises(BrokerError, match="not a broker's address"):
        mqtt_settings(url, None, None)


def test_a_password_file_is_never_without_effect(tmp_path):
    """It needs a user, and to be read."""
    (tmp_path / "pw").write_bytes(b"\xff")
    with pytest.raises(DeployError, match="USER@HOST"):
        mqtt_settings("mqtt://broker", tmp_path / "pw", None)
    with pytest.raises(DeployError, match="cannot be read"):
        mqtt_settings("mqtt://pi@broker", tmp_path / "pw", None)


def test_a_device_name_is_judged_before_anything_is_sent():
    """It stands in every topic; the refusal says a name that may."""
    with pytest.raises(DeployError, match="try 'pi-5'"):
        mqtt_settings(None, None, "Pi 5")


PLAIN = '# mine\n[engine]\nthreads = 1   # few\n\n[mqtt]\nurl = "mqtt://broker" # ours\n'


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (PLAIN, ["# mine", "# few", "# ours"]),
        (PLAIN.replace("[engine]\nthreads = 1   # few\n\n", ""), ["# mine", "# ours"]),  # no such section yet
        ("", []),
        ("[engine] # all of it\n[mqtt]\n", ["# all of it"]),
        ("[engine]\n  threads=1\n# the end", ["# the end"]),
        ("engine = { threads = 1 }\n", []),  # another way of writing it: comments are lost, values are not
        ("engine.threads = 1\n[mqtt]\nkeepalive_s = 9\n", []),
        ('[mqtt]\nclient_id = """\n[engine]\nthreads = 5\n"""\n', []),  # a text that looks like a section
        ('[engine]\nisa = "" # "quoted"\nthreads = 1\n', []),
    ],
)
def test_keys_are_set_and_all_else_stays(tmp_path, before, kept):
    """However the file was written; and setting them again changes nothing."""
    path = tmp_path / "edgebitd.toml"
    path.write_text(before)
    values = {"threads": 3, "batch_len": 128, "kv": "int8"}
    wanted = tomllib.loads(before)
    wanted.setdefault("engine", {}).update(values)

    changed = set_keys(path, "engine", values)
    first = path.read_text()

    assert changed
    assert tomllib.loads(first) == wanted
    assert all(comment in first for comment in kept)
    assert set_keys(path, "engine", values) is False
    assert path.read_text() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["edgebitd.toml"]


def test_a_new_file_is_its_owners_and_another_keeps_its_mode(tmp_path):
    """What others could read they still can."""
    new, old = tmp_path / "new.toml", tmp_path / "old.toml"
    old.write_text("")
    old.chmod(0o644)

    for path in (new, old):
        set_keys(path, "engine", {"threads": 2})

    assert (new.stat().st_mode & 0o777, old.stat().st_mode & 0o777) == (0o600, 0o644)


@pytest.mark.parametrize(
    ("before", "values", "words"),
    [
        ("[engine]\nthreats = 1\n", {"threads": 2}, "unknown key 'threats'"),
        ("engine = 1\n", {"threads": 2}, "must be a section"),
        ("[engine\n", {"threads": 2}, "is not TOML"),
        ("", {"threads": 1000}, "must lie between"),
        ("", {"kv": "int3"}, 'kv is "f16", "int8" or "f32"'),
    ],
)
def test_what_would_not_be_a_configuration_is_not_written(tmp_path, before, values, words):
    """The file is as it was."""
    path = tmp_path / "edgebitd.toml"
    path.write_text(before)

    with pytest.raises(ConfigError, match=words):
        set_keys(path, "engine", values)

    assert path.read_text() == before


def test_a_full_disk_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    """In words, and no half of a file beside the whole one."""
    path = tmp_path / "edgebitd.toml"
    path.write_text(PLAIN)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"edgebitd.toml cannot be written: No space left"):
        set_keys(path, "engine", {"threads": 2})

    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("edgebitd.toml", PLAIN)]


def test_a_folder_that_is_none_is_refused_in_words(tmp_path):
    """Beforehand too, so that nobody waits for what cannot be kept."""
    (tmp_path / "file").write_text("")

    for act in (check_writable, lambda path: set_keys(path, "engine", {"threads": 2})):
        with pytest.raises(ConfigError, match="cannot be written"):
            act(tmp_path / "file" / "edgebitd.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_writes_for_the_files_owner(tmp_path, monkeypatch):
    """The daemon can still read what root has tuned; a new file is the folder's owner's."""
    old, new = tmp_path / "edgebitd.toml", tmp_path / "new.toml"
    old.write_text(PLAIN)
    old.chmod(0o640)
    os.chown(old, 12345, 12346)
    os.chown(tmp_path, 12347, 12348)

    for path in (old, new):
        set_keys(path, "engine", {"threads": 2})

    found = [(entry.stat().st_uid, entry.stat().st_gid, entry.stat().st_mode & 0o777) for entry in (old, new)]
    assert found == [(12345, 12346, 0o640), (12347, 12348, 0o600)]

    def refuse(handle, user, group):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)  # as for a user who may write in the folder, but gives nothing away
    with pytest.raises(ConfigError, match=r"cannot be written.*as root"):
        set_keys(old, "engine", {"threads": 3})
    assert old.stat().st_uid == 12345
