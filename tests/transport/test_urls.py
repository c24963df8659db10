"""What is said of a text that names no way to a device: what was meant, where that is plain."""

import pytest

from edgebit.errors import TransportError
from edgebit.transport import open_transport


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("pi@raspberrypi.local", "ssh://pi@raspberrypi.local"),
        ("raspberrypi.local", "ssh://raspberrypi.local"),
        ("kitchen", "ssh://kitchen"),
        ("pi@10.0.0.7:2222", "ssh://pi@10.0.0.7:2222"),
        ("pi@kitchen:/srv/edgebit", "ssh://pi@kitchen/srv/edgebit"),
        ("pi@kitchen:edgebit", "ssh://pi@kitchen/~/edgebit"),
        ("kitchen.local:/srv/edgebit", "ssh://kitchen.local/srv/edgebit"),
        ("pi@kitchen:", "ssh://pi@kitchen"),
        ("shh://pi@kitchen", "ssh://pi@kitchen"),
        ("SSH://pi@kitchen", "ssh://pi@kitchen"),
        ("./device", "local:./device"),
        ("/srv/device", "local:/srv/device"),
        ("~/device", "local:~/device"),
        ("folder", "local:folder"),
        ("locl:folder", "local:folder"),
        ("/dev/ttyUSB0", "serial:///dev/ttyUSB0"),
    ],
)
def test_what_was_meant_is_said(tmp_path, monkeypatch, given, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    with pytest.raises(TransportError) as caught:
        open_transport(given)

    assert str(caught.value) == f"{given!r} names no way to a device. Did you mean {meant}?"


@pytest.mark.parametrize("given", ["", "ftp://kitchen", "carrier-pigeon:x", "ssh", "shh://", "a b", "::"])
def test_else_all_ways_are_named(given):
    with pytest.raises(TransportError, match=r"Write ssh://.* or local:FOLDER$"):
        open_transport(given)
