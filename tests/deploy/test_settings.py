"""edgebitd.toml as a deploy writes it."""

import tomllib

import pytest

from edgebit.cli.deploy import mqtt_settings
from edgebit.daemon.agent import refuse_mute
from edgebit.daemon.config import read_password
from edgebit.daemon.settings import merge_settings, to_toml
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
