"""fleet.toml: what it says of each device, and everything it may not say."""

from pathlib import Path

import pytest

from edgebit.errors import ConfigError
from edgebit.fleet.inventory import find_inventory, read_inventory

INVALID = Path(__file__).parent / "invalid"
FLEET = """
[defaults]
mqtt = "mqtt://edgebit@broker.local"
mqtt_password_file = "broker.password"
ssh_options = ["ConnectTimeout=5"]
labels = { site = "home", board = "rpi4" }
settings.engine = { threads = 2, kv = "int8" }

[groups.kitchen]
ssh_options = ["ConnectTimeout=20"]
settings.engine.threads = 3

[groups.upstairs]
mqtt = "mqtts://upstairs.local"

[devices.kitchen-1]
url = "ssh://pi@kitchen-1.local"
groups = ["kitchen"]

[devices.kitchen-2]
url = "ssh://pi@kitchen-2.local"
groups = ["kitchen", "upstairs"]
labels = { board = "rpi5" }
device_name = "hob"

[devices.attic]
url = "local:attic"
groups = ["upstairs"]
"""


@pytest.fixture
def fleet(tmp_path):
    """The inventory above, read."""
    (tmp_path / "fleet.toml").write_text(FLEET)
    (tmp_path / "broker.password").write_text("secret\n")
    return read_inventory(tmp_path / "fleet.toml")


@pytest.mark.parametrize("path", sorted(INVALID.glob("*.toml")), ids=lambda path: path.stem)
def test_invalid_inventory_is_refused(path):
    """The first line of each broken file says the words its refusal must hold, and the file is named."""
    promised = path.read_text().splitlines()[0].removeprefix("# ")

    with pytest.raises(ConfigError) as refused:
        read_inventory(path)

    assert promised in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_the_nearest_word_counts(fleet):
    """A device's own word goes before its groups', in their order, and theirs before the defaults."""
    first, second, attic = fleet.devices

    assert (first.mqtt, second.mqtt) == ("mqtt://edgebit@broker.local", "mqtts://upstairs.local")
    assert (first.device_name, second.device_name) == ("kitchen-1", "hob")
    assert first.labels == {"site": "home", "board": "rpi4"} and second.labels == {"site": "home", "board": "rpi5"}
    assert first.settings == {"engine": {"threads": 3, "kv": "int8"}}
    assert attic.settings == {"engine": {"threads": 2, "kv": "int8"}}
    assert first.way.ssh_options == ("ConnectTimeout=20", "ConnectTimeout=5", "BatchMode=yes")  # ssh takes the first
    assert attic.url == f"local:{fleet.path.parent / 'attic'}"


def test_a_password_stays_with_its_broker(fleet):
    """The defaults' password is not sent to a broker that a group names."""
    first, second, _ = fleet.devices

    assert first.daemon_settings()["mqtt"] == {
        "url": "mqtt://broker.local:1883", "user": "edgebit", "password": "secret"
    }  # fmt: skip
    assert second.mqtt_password_file is None
    assert second.daemon_settings("other")["mqtt"] == {"url": "mqtts://upstairs.local:8883"}
    assert first.daemon_settings()["device"] == {"name": "kitchen-1"}


def test_a_missing_password_file_is_named(fleet):
    """Before anything is sent anywhere."""
    (fleet.path.parent / "broker.password").unlink()

    with pytest.raises(ConfigError, match=r"kitchen-1: the password file .*broker\.password cannot be read"):
        fleet.devices[0].daemon_settings()


@pytest.mark.parametrize(
    ("groups", "labels", "names", "chosen"),
    [
        ((), (), (), ["kitchen-1", "kitchen-2", "attic"]),
        (("all",), (), (), ["kitchen-1", "kitchen-2", "attic"]),
        (("kitchen",), (), (), ["kitchen-1", "kitchen-2"]),
        (("kitchen", "upstairs"), (), (), ["kitchen-1", "kitchen-2", "attic"]),
        (("kitchen",), [("board", "rpi5")], (), ["kitchen-2"]),
        ((), [("board", "rpi4"), ("site", "home")], (), ["kitchen-1", "attic"]),
        ((), (), ("attic", "kitchen-1"), ["kitchen-1", "attic"]),
        (("upstairs",), (), ("kitchen-1",), ["kitchen-1", "kitchen-2", "attic"]),
    ],
)
def test_devices_are_chosen(fleet, groups, labels, names, chosen):
    """Any of the groups or names, all of the labels, in the file's order."""
    assert [device.name for device in fleet.select(groups, labels, names)] == chosen


@pytest.mark.parametrize(
    ("asked", "promised"),
    [
        ({"groups": ["kitchn"]}, "no group 'kitchn'; there are kitchen, upstairs, all"),
        ({"names": ["atic"]}, "no device 'atic'; there are attic, kitchen-1, kitchen-2"),
        ({"labels": [("board", "rpi3")]}, "no device is what was asked for"),
    ],
)
def test_who_is_not_there_is_not_chosen(fleet, asked, promised):
    """A name that nothing has is an error, not an empty roll-out."""
    with pytest.raises(ConfigError, match=promised):
        fleet.select(**asked)


def test_the_inventory_is_found(tmp_path, monkeypatch):
    """The one named, then the folder's, then the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"neither \./fleet\.toml nor .*/config/edgebit/fleet\.toml"):
        find_inventory(None)

    (tmp_path / "config" / "edgebit").mkdir(parents=True)
    (tmp_path / "config" / "edgebit" / "fleet.toml").write_text("")
    assert find_inventory(None) == tmp_path / "config" / "edgebit" / "fleet.toml"

    (tmp_path / "fleet.toml").write_text("")
    assert find_inventory(None) == Path("fleet.toml")
    assert find_inventory(Path("other.toml")) == Path("other.toml")


def test_an_inventory_that_is_not_there_is_named(tmp_path):
    """With the way to mend it."""
    with pytest.raises(ConfigError, match=r"other\.toml cannot be read: No such file"):
        read_inventory(tmp_path / "other.toml")
