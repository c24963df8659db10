"""A whole deploy over the serial console of the emulated Pi: real agetty, login and bash on a pseudo-terminal."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_fixtures import Board

from edgebit.bundle.archive import open_bundle, write_archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PASSWORD = 'it\'s "$HOME"'
SCRIPT = Path(__file__).resolve().parent.parent.parent / ".ci" / "emulated_pi.sh"
HOME = "home/pi/.local/share/edgebit"


@pytest.fixture(scope="module")
def console(pi, tmp_path_factory) -> Iterator[tuple[Board, Path]]:
    """A second device beside the one with sshd, and its folder; the user has a password."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "password").write_text(PASSWORD + "\n")
    board = Board([str(SCRIPT), "getty", str(folder)])
    yield board, folder
    board.close()


@pytest.fixture(scope="module")
def small_bundle(bundle, tmp_path_factory) -> Path:
    """The bundle without the program for devices that have no Python: a third less to send."""
    folder, opened = tmp_path_factory.mktemp("small"), open_bundle(bundle)
    files = {}
    for name in set(opened.members) - {"bin/edgebit-run"}:
        files[name] = folder / name.replace("/", "-")
        opened.extract(name, files[name])
    kept = {name: entry for name, entry in opened.manifest.files.items() if name in files}
    write_archive(folder / "small.bundle", dataclasses.replace(opened.manifest, files=kept), files)
    return folder / "small.bundle"


def test_deploy_answer_and_uninstall(pi, console, small_bundle):
    """Through login into the slot, past golden probes and health gate, to an answer; and away again without a trace."""
    board, folder = console
    there = f"serial://{board.port}?user=pi"
    known = ["--serial-password-file", str(folder / "password")]

    deployed = pi.edgebit(
        "deploy", str(small_bundle), "--to", there, "--mqtt", pi.broker, "--device-name", "console", "--json", *known
    )
    outcome = json.loads(deployed.stdout)
    assert outcome["probes"] > 0
    assert outcome["sent_bytes"] == sum(entry.size for entry in open_bundle(small_bundle).manifest.files.values())
    assert "sending takes about" in deployed.stderr
    assert PASSWORD not in deployed.stderr

    answer = pi.edgebit("ask", "--device", "console", "--broker", pi.broker, "-n", "4", "turn on the light").stdout
    assert answer.strip()

    pi.edgebit("uninstall", there, "--yes", *known)
    assert not (folder / "upper" / HOME).exists()
