"""Mender's and SWUpdate's own clients, and thin-edge's calls, with what is exported for them and the real agent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgebit.deploy.device import Device
from edgebit.fleet.export import export_hawkbit, export_mender, export_thin_edge
from edgebit.transport import open_transport

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the update module where Mender looks")


class MenderDevice:
    """A device with the Mender client in stand-alone mode; what it looks for in fixed places is mounted there."""

    def __init__(self, folder, programs):
        self.folder = folder
        self._programs = programs
        for name in ("data", "etc", "modules"):
            (folder / name).mkdir(parents=True)
        (folder / "data" / "device_type").write_text("device_type=box\n")
        (folder / "etc" / "artifact_info").write_text("artifact_name=factory\n")
        (folder / "etc" / "mender.conf").write_text("{}\n")

    def __call__(self, *args, code=0):
        """`mender ARGS`; gives how it ended."""
        script = (
            'mount --bind "$0/modules" /usr/share/mender/modules/v3; mount --bind "$0/etc" /etc/mender;'
            ' exec mender --no-syslog --data "$0/data" "$@"'
        )
        done = subprocess.run(
            [self._programs["unshare"], "-m", "sh", "-ec", script, str(self.folder), *map(str, args)],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def artifact(self):
        return self("show-artifact").stdout.strip()


@pytest.fixture
def mender(require_tool, tmp_path):
    """The client, and its folders."""
    return MenderDevice(
        tmp_path / "mender", {name: require_tool(name) for name in ("mender", "mender-artifact", "unshare")}
    )


@pytest.fixture
def artifact(mender, local_device, tmp_path):
    """Exports a bundle for the device, and puts the update module in place; gives the artifact."""

    def make(bundle, device_type="box"):
        out = tmp_path / f"export-{bundle.manifest.name}"
        module, made = export_mender(bundle, out, device_types=[device_type], root=str(local_device.root))
        (mender.folder / "modules" / "edgebit").write_bytes(module.read_bytes())
        (mender.folder / "modules" / "edgebit").chmod(0o755)
        return made

    return make


@ROOT_ONLY
@pytest.mark.slow
def test_mender_installs_commits_and_rolls_back(make_bundle, local_device, mender, artifact):
    """Installed on trial until the commit; a roll-back before it, and only that, brings the old one back."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")

    mender("install", artifact(new))
    assert local_device.running() == "new"
    mender("rollback")
    assert local_device.running() == "old"
    assert mender.artifact == "factory"

    mender("install", artifact(new))
    mender("commit")
    assert local_device.running() == "new"
    assert mender.artifact == f"new-{new.id}"
    assert new.id in mender("show-provides").stdout
    status = local_device.installed().status()
    assert status["slots"][status["active"]]["status"] == "good" and status["refused"] == {}


@ROOT_ONLY
@pytest.mark.slow
@pytest.mark.parametrize("act", [{"golden": "wrong"}, {"answers": "error"}])
def test_mender_hears_of_a_bundle_that_does_not_answer(make_bundle, local_device, mender, artifact, act):
    """The install fails, the old bundle answers, and Mender has not moved on."""
    local_device.deploy(make_bundle("old"))

    said = mender("install", artifact(make_bundle("bad", **act)), code=1).stderr

    assert "self-test failed" in said or "was taken back" in said
    assert local_device.running() == "old"
    assert mender.artifact == "factory"
    assert "nothing to commit" in mender("commit", code=2).stderr


@ROOT_ONLY
@pytest.mark.slow
def test_mender_refuses_what_is_for_another_device(make_bundle, local_device, mender, artifact):
    """By its device type, before the update module is asked."""
    local_device.deploy(make_bundle("old"))

    mender("install", artifact(make_bundle("new"), device_type="another"), code=1)

    assert local_device.running() == "old"


class SwUpdate:
    """SWUpdate as a program of the device, and a key that it trusts."""

    def __init__(self, folder, program, openssl):
        self.folder, self._program = folder, program
        (folder / "tmp").mkdir(parents=True)
        self.signers = {}
        for name in ("fleet", "stranger"):
            certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
            subprocess.run(
                [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                 "-addext", "extendedKeyUsage=emailProtection", "-keyout", str(key), "-out", str(certificate)],
                check=True, capture_output=True,
            )  # fmt: skip
            self.signers[name] = {"certificate": certificate, "key": key}

    def __call__(self, update, *, hardware="box:1.0", code=0):
        argv = [self._program, "-i", str(update), "-k", str(self.signers["fleet"]["certificate"]), "-H", hardware, "-v"]
        environment = {**os.environ, "TMPDIR": str(self.folder / "tmp"),
                       "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def swupdate(require_tool, tmp_path):
    """The program, with a key that it trusts and one that it does not."""
    return SwUpdate(tmp_path / "swupdate", require_tool("swupdate"), require_tool("openssl"))


@pytest.fixture
def update(swupdate, local_device, tmp_path):
    """Exports a bundle for the device; gives the update."""

    def make(bundle, signer="fleet"):
        out = tmp_path / f"{bundle.manifest.name}-{signer}"
        options = {"hardware": ["1.0", "1.1"], "root": str(local_device.root), **swupdate.signers.get(signer, {})}
        (made,) = export_hawkbit(bundle, out, **options)
        return made

    return make


@pytest.mark.slow
def test_swupdate_installs_and_goes_back(make_bundle, local_device, swupdate, update):
    """What answers stays; what does not is back on the one before, and the update has failed. Nothing is left over."""
    local_device.deploy(make_bundle("old"))

    assert "SWUpdate was successful" in swupdate(update(make_bundle("new")))
    assert local_device.running() == "new"

    said = swupdate(update(make_bundle("bad", answers="error")), code=1)
    assert "was taken back" in said
    assert local_device.running() == "new"
    assert not local_device.root.with_name("device.incoming").exists()


@pytest.mark.slow
def test_swupdate_refuses_what_is_not_for_it(make_bundle, local_device, swupdate, update):
    """Another hardware, another signer, no signature, and a bundle that was changed: before the script is run."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")
    good = update(new)

    swupdate(good, hardware="box:2.0", code=1)
    swupdate(update(new, "stranger"), code=1)
    swupdate(update(new, "nobody"), code=1)
    data = bytearray(good.read_bytes())
    data[data.index(b"no library")] ^= 1
    good.write_bytes(data)
    swupdate(good, code=1)

    assert local_device.running() == "old"
    slots = local_device.installed().status()["slots"].values()
    assert [slot["name"] for slot in slots] == ["old"]


@pytest.mark.slow
def test_thin_edge_goes_through_a_life(make_bundle, local_device, tmp_path):
    """Each call as the agent of thin-edge makes it: installed, replaced, refused, gone back, removed."""
    first, second, bad = make_bundle("chat"), make_bundle("chat2"), make_bundle("mute", answers="error")
    script, _ = export_thin_edge(first, tmp_path / "plugin", root=str(local_device.root))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def plugin(*args, stdin="", code=0):
        argv = [str(script), *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, input=stdin, env=environment)
        assert done.returncode == code, done.stderr
        return done.stdout

    def update(*args, code=0):
        plugin("prepare")
        plugin(*args, code=code)
        plugin("finalize")

    assert plugin("list") == ""
    local_device.root.mkdir()
    url = f'[mqtt]\nurl = "{local_device.broker}"\n[device]\nname = "test"\n'
    (local_device.root / "edgebitd.toml").write_text(url)
    (local_device.root / "run").mkdir()
    (local_device.root / "run" / "service").write_text("supervisor\n")  # no systemd unit on the machine of the tests
    update("install", "chat", "--module-version", first.id, "--file", first.path)
    assert plugin("list") == f"chat\t{first.id}\n"

    update("install", "chat", "--module-version", second.id, "--file", second.path, code=2)  # it is not called so
    plugin("update-list", stdin=f"install\tchat2\t{second.id}\t{second.path}\n")
    assert plugin("list") == f"chat2\t{second.id}\n" and local_device.running() == "chat2"

    update("install", "mute", "--file", bad.path, code=2)
    assert plugin("list") == f"chat2\t{second.id}\n" and local_device.running() == "chat2"

    update("remove", "chat2", "--module-version", first.id)  # not that one
    assert local_device.running() == "chat2"
    update("remove", "chat2")
    assert plugin("list") == "" and (local_device.root / "edgebitd.toml").exists()


@pytest.mark.slow
def test_thin_edge_is_told_that_a_broker_may_come_back(make_bundle, local_device, tmp_path):
    """Exit code 3, where it is out of reach; the bundle is not refused for it."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")
    script, _ = export_thin_edge(new, tmp_path / "plugin", root=str(local_device.root))
    settings = local_device.root / "edgebitd.toml"
    right = settings.read_text()
    settings.write_text(right.replace(local_device.broker, "mqtt://127.0.0.1:1"))
    with open_transport(local_device.url) as transport:
        Device.installed(transport).ask("stop")

    argv = [str(script), "install", "new", "--file", str(new.path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stderr
    assert local_device.installed().status()["refused"] == {}
