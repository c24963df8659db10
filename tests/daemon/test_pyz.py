"""edgebitd.pyz: one file, the same bytes each time, and complete."""

import ast
import json
import os
import re
import subprocess
import sys
import time
import zipfile

import pytest

from edgebit import __version__, pyz
from edgebit.errors import BuildError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("pyz") / "edgebitd.pyz"
    pyz.build_pyz(path)
    return path


def run(path, *arguments, **environment):
    """Run it with nothing of this environment in reach: no site-packages, no PYTHONPATH."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
        cwd=path.parent,
    )


def test_the_same_bytes_each_time(built, tmp_path):
    """Neither the clock nor the order of a folder's files shows."""
    again = tmp_path / "again.pyz"
    time.sleep(1.1)  # a zip counts time in steps of two seconds
    pyz.build_pyz(again)
    assert again.read_bytes() == built.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_it_runs_by_itself(built):
    """Python and the file are enough for its verbs."""
    assert run(built, "--version").stdout == f"edgebitd {__version__}\n"
    assert built.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    refused = run(built, "run", "--root", "nowhere")
    assert refused.returncode == 13 and "nowhere/edgebitd.toml cannot be read" in refused.stderr
    assert "unrecognized arguments" not in run(built, "agent", "--root", "nowhere", "status").stderr


def test_all_inside_can_be_imported(built):
    """Every module of edgebit in it finds what it imports, in it or in the standard library."""
    script = (
        "import sys, zipfile, importlib; sys.path.insert(0, sys.argv[1])\n"
        "names = [n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.startswith('edgebit/')]\n"
        "for name in names:\n"
        "    if not name.endswith('__main__.py'):\n"
        "        importlib.import_module(name[:-3].replace('/', '.').removesuffix('.__init__'))\n"
        "import paho.mqtt.client, serial\n"
        "print(len(names), sorted({m.__file__ for m in (paho.mqtt.client, serial)}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(built)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 15 and done.stdout.count(str(built)) == 2


def test_nothing_of_a_workstation_is_inside(built):
    """No converter, no command line, no compiled files; the licences of others are there."""
    names = zipfile.ZipFile(built).namelist()
    assert names == sorted(names)
    assert not [name for name in names if name.startswith(("edgebit/cli", "edgebit/checkpoint", "edgebit/convert"))]
    assert not [name for name in names if name.endswith((".pyc", ".so"))]
    assert any(name.startswith("licences/paho-mqtt") for name in names)


def test_an_old_python_is_told_so(built):
    """The first lines parse in any Python 3, and speak before anything else is imported."""
    source = zipfile.ZipFile(built).read("__main__.py").decode()
    ast.parse(source, feature_version=(3, 4))
    old = re.sub(r"sys\.version_info", "(3, 9, 2)", source)
    done = subprocess.run([sys.executable, "-I", "-S", "-"], input=old, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "edgebitd needs Python 3.11 or newer" in done.stderr and "is 3.9. Install" in done.stderr


def test_a_python_without_zlib_is_told_so(built):
    """All modules are deflated; the first lines alone are not, and say what is missing."""
    with zipfile.ZipFile(built) as archive:
        plain = [entry.filename for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED]
    assert plain == ["__main__.py"]
    script = "import runpy, sys; sys.modules['zlib'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(built)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "edgebitd needs Python's module zlib" in done.stderr and "Install a whole python3" in done.stderr


def test_a_missing_distribution_is_named(monkeypatch, tmp_path):
    """With the command that mends it."""
    monkeypatch.setattr(pyz, "DISTRIBUTIONS", {"no-such-distribution": "none"})
    with pytest.raises(BuildError, match="pip install no-such-distribution"):
        pyz.build_pyz(tmp_path / "x.pyz")
    assert not list(tmp_path.iterdir())


def test_check_config(built, tmp_path):
    """A configuration can be looked at without running."""
    (tmp_path / "edgebitd.toml").write_text('[device]\nname = "pi5"\n[mqtt]\nurl = "mqtt://broker.local"\n')
    done = run(built, "run", "--root", str(tmp_path), "--check-config")
    assert done.returncode == 0 and "device pi5, broker mqtt://broker.local" in done.stdout


def test_it_answers(built, mosquitto, ears, reference_model, native, tmp_path):
    """The one file, python3 and the native library are a device."""
    broker = mosquitto()
    config = tmp_path / "edgebitd.toml"
    config.write_text(f'[device]\nname = "pi"\n[mqtt]\nurl = "{broker.url}"\n')
    argv = [sys.executable, "-I", "-S", str(built), "run", "--bundle", str(reference_model("bitnet-packed"))]
    log = tmp_path / "log"
    environment = {"PATH": os.environ["PATH"], "EDGEBIT_LIBRARY": str(native.path)}
    with (
        log.open("wb") as stream,
        subprocess.Popen([*argv, "--config", str(config)], stdout=stream, stderr=stream, env=environment) as daemon,
    ):
        try:
            ear = ears(broker.port, "edgebit/v1/pi/status", "edgebit/v1/pi/out/#")
            ear.until(lambda message: b'"ready"' in message.payload)
            ear.say("edgebit/v1/pi/in/alice/generate", {"prompt": "hi", "options": {"num_predict": 4}})
            reply = json.loads(ear.until(lambda message: "/out/" in message.topic).payload)
            assert reply["usage"]["completion_tokens"] <= 4 and reply["t"] == "done"
        finally:
            daemon.terminate()
            assert daemon.wait(60) == 0, log.read_text()
    assert log.read_text().count("stopped") == 1
