"""What a phone is over adb, emulated: aarch64 under qemu, mksh as its shell, toybox, no Python, and adb's own user.

The adb server and client are real, the adbd is not (tests/transport/fake_adbd.py). edgebit-run is that of a bundle for
a Pi: static, so it needs no bionic. The tests go on from one another, in the order they stand.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.conftest import SCRIPT
from e2e.test_pi import pack, unpack, with_wrong_probe
from transport.fake_adbd import FakeAdbd, Phone, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROMPT, TOKENS = "turn on the light", "8"


@dataclasses.dataclass
class EmulatedPhone:
    """The phone's adbd, its files, and the adb server that sees it."""

    phone: Phone
    adbd: FakeAdbd
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"adb://127.0.0.1:{self.adbd.port}"

    @property
    def files(self) -> Path:
        """Edgebit's folder there."""
        return self.phone.files / "data" / "local" / "tmp" / "edgebit"

    def edgebit(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run an edgebit command, and expect its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "edgebit", *args], capture_output=True, text=True, timeout=600, check=False,
            env=self.environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def answer(self) -> str:
        """What its active bundle says, asked by hand."""
        active = "/data/local/tmp/edgebit/active"
        command = f"{active}/bin/edgebit-run {active}/model.ebm --chat -p '{PROMPT}' -n {TOKENS}"
        return subprocess.run(
            ["adb", "-s", self.url.removeprefix("adb://"), "shell", command],
            env=self.environment, capture_output=True, text=True, check=True, timeout=300,
        ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def emulated_phone(
    require_tool: Callable[[str], str], adb_server: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmulatedPhone]:
    for tool in ("mmdebstrap", "qemu-aarch64-static", "unshare"):
        require_tool(tool)
    root = tmp_path_factory.mktemp("phone") / "root"
    subprocess.run([str(SCRIPT), "phone", str(root)], check=True, timeout=600)
    phone = Phone(
        shell=lambda command: [str(SCRIPT), "in-phone", str(root), command],
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        files=root,
    )
    adbd = FakeAdbd(phone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server))
        yield EmulatedPhone(phone, adbd, dict(os.environ))
        subprocess.run(["adb", "disconnect", f"127.0.0.1:{adbd.port}"], capture_output=True, check=False, timeout=60)
    adbd.close()


def test_first_deploy_is_cut_off_and_goes_on(emulated_phone, bundle):
    """The cable is pulled half-way through the model; the next deploy sends the rest, and probes hold bit for bit."""
    emulated_phone.phone.lost_after = 100_000
    cut = emulated_phone.edgebit("deploy", str(bundle), "--to", emulated_phone.url, code=7).stderr
    assert "goes on where it stopped" in cut and not (emulated_phone.files / "active").is_symlink()
    wait_until(lambda: emulated_phone.phone.ended == len(emulated_phone.phone.commands))

    outcome = json.loads(emulated_phone.edgebit("deploy", str(bundle), "--to", emulated_phone.url, "--json").stdout)

    assert outcome["probes"] > 0 and outcome["isa"] != "scalar"
    assert outcome["run_with"].startswith("/data/local/tmp/edgebit/active/bin/edgebit-run ")
    assert emulated_phone.files.stat().st_uid == 2000


def test_phone_and_this_machine_say_the_same(emulated_phone, bundle):
    """The engine counts in integers where it matters: the same tokens on both."""
    here = emulated_phone.edgebit("run", str(bundle), PROMPT, "-n", TOKENS, "--temperature", "0").stdout

    assert emulated_phone.answer().strip() == here.strip() != ""


def test_bundle_that_computes_otherwise(emulated_phone, bundle, tmp_path):
    """One bit of its golden probe is turned: refused on the phone, and the bundle from before answers."""
    files = unpack(bundle, tmp_path / "files")
    before = emulated_phone.answer()
    files["model.ebm"].write_bytes(with_wrong_probe(files["model.ebm"].read_bytes()))
    wrong = pack(bundle, files, tmp_path / "wrong.bundle")

    said = emulated_phone.edgebit("deploy", str(wrong), "--to", emulated_phone.url, code=8).stderr

    assert "self-test failed" in said and "probe" in said
    assert emulated_phone.answer() == before
    assert (emulated_phone.files / "active").readlink() == Path("slots/a")


def test_phone_without_room(emulated_phone, bundle, tmp_path):
    """Refused before a byte is sent, by what df says there."""
    files = unpack(bundle, tmp_path / "files")
    other, place = pack(bundle, files, tmp_path / "other.bundle"), emulated_phone.phone.files / "data" / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "none", str(place)], check=True)
    try:
        said = emulated_phone.edgebit("deploy", str(other), "--to", f"{emulated_phone.url}/data/full/e", code=8).stderr
        assert "MB free under /data/full/e" in said and not list(place.iterdir())
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_status_and_uninstall(emulated_phone):
    """What is there is shown without a daemon, and leaves no trace."""
    status = json.loads(emulated_phone.edgebit("status", emulated_phone.url, "--json").stdout)
    assert status["probe"]["arch"] == "aarch64" and status["service"] == "none" and status["up"]
    assert status["probe"]["python"] is None

    assert "nothing is left" in emulated_phone.edgebit("uninstall", emulated_phone.url, "--yes").stdout
    assert not emulated_phone.files.exists()
