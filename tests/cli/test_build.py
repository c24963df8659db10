"""edgebit build and verify, from a reference checkpoint to a judged bundle."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgebit import build as build_service
from edgebit.bundle.archive import open_bundle
from edgebit.bundle.model_format import MAGIC
from edgebit.bundle.model_reader import ModelFile
from edgebit.checks import Check
from edgebit.cli import COMMANDS, cli
from edgebit.errors import BuildError, BundleError, CheckpointError, EdgebitError, TargetError
from edgebit.resources import assistant_model_dir

Checkpoint = Callable[[str], Path]


def edgebit(*arguments: str | Path) -> Result:
    """Run the command line in this process; an EdgebitError is raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    if isinstance(result.exception, EdgebitError):
        raise result.exception
    return result


@pytest.fixture
def bundle(native, reference_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A bundle for this machine, built from a checkpoint."""
    out = tmp_path / "host.bundle"
    result = edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", out)
    assert result.exit_code == 0, result.output
    return out


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_host_bundle_holds_all_and_verifies(bundle):
    """The parts that deploy needs, all sums right, probes bit for bit."""
    opened = open_bundle(bundle)
    report = json.loads(edgebit("verify", bundle, "--json").output)

    assert {"model.ebm", "lib/libedgebit.so", "edgebitd.pyz", "service/edgebit-daemon.service"} <= set(opened.members)
    assert opened.manifest.name == "host"
    assert opened.manifest.model.parameters > 0
    assert report["ok"] and report["bundle"] == opened.id
    probes = [check for check in report["checks"] if check["name"] == "model on this machine's engine"]
    assert re.search(r"[1-9]\d* golden probes bit for bit", probes[0]["detail"])


def test_operators_for_onnx_runtime_are_in_on_request_only(native, bundle, reference_checkpoint, tmp_path, monkeypatch):
    """Checked as the engine is, named with its sum; an installed edgebit without them says so, and nothing is left."""
    model, out = reference_checkpoint("bitnet-packed"), tmp_path / "with.bundle"
    arguments = ("build", model, "--target", "host", "--onnx-library", "--json", "--out", out)
    built = json.loads(edgebit(*arguments).stdout)
    verified = json.loads(edgebit("verify", out, "--json").output)

    member = "lib/libedgebit_ort.so"
    assert member in built["manifest"]["files"] and member not in open_bundle(bundle).members
    assert f"{member[4:]}: exports" in {check["name"] for check in built["checks"] if check["status"] == "passed"}
    assert verified["ok"] and member in {check["group"] for check in verified["checks"]}

    out.unlink()
    monkeypatch.setenv("EDGEBIT_ORT_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(BuildError, match=r"EDGEBIT_ORT_LIBRARY names .*none\.so, .*--builder system"):
        edgebit(*arguments)
    assert left_in(tmp_path) == ["host.bundle"]


def test_build_leaves_only_the_bundle(bundle):
    """No work folder, no .part."""
    assert left_in(bundle.parent) == ["host.bundle"]


def test_same_input_same_bundle(bundle, reference_checkpoint, tmp_path):
    """Building again, elsewhere and from the model file, gives the same bytes and id."""
    (tmp_path / "b").mkdir()
    again, from_model = tmp_path / "b" / "host.bundle", tmp_path / "b" / "model" / "host.bundle"
    edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", again)
    from_model.parent.mkdir()
    model = tmp_path / "b" / "model.ebm"
    open_bundle(bundle).extract("model.ebm", model)
    edgebit("build", model, "--target", "host", "--out", from_model)

    assert again.read_bytes() == bundle.read_bytes()
    assert from_model.read_bytes() == bundle.read_bytes()


def test_shipped_assistant_is_small(native, tmp_path):
    """All that a device needs of it, in 4 MB."""
    out = tmp_path / "assistant.bundle"
    edgebit("build", assistant_model_dir(), "--target", "host", "--out", out)

    assert "bin/edgebit-run" in open_bundle(out).members
    assert out.stat().st_size <= 4_000_000


def test_json_says_what_was_built(native, reference_checkpoint, tmp_path):
    """For scripts: size, bits a weight, checks, times."""
    out = tmp_path / "x.bundle"
    result = edgebit(
        "build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", out, "--name", "kitchen", "--json"
    )
    said = json.loads(result.stdout)

    assert said["size"] == out.stat().st_size
    assert said["manifest"]["name"] == "kitchen"
    assert 1.58 < said["bits_per_weight"] < 64
    assert {check["status"] for check in said["checks"]} <= {"passed", "not run"}
    assert set(said["seconds"]) == {
        "native files", "artifact checks", "daemon", "model", "golden probes", "bundle",
    }  # fmt: skip


def test_int8_embedding_is_smaller(bundle, reference_checkpoint, tmp_path):
    """The lossy option does what it is for."""
    small = tmp_path / "small.bundle"
    edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", small, "--embedding", "int8")

    assert small.stat().st_size < bundle.stat().st_size


@pytest.mark.parametrize(("asked", "stored"), [("t1", "t1"), ("t2", "t2"), ("auto", "t2")])
def test_the_layout_is_as_asked_or_of_the_target(asked, stored, native, reference_checkpoint, tmp_path):
    """Of this machine's target no figures are known, and t2 takes the fewest cycles; the note says so."""
    out = tmp_path / "m.bundle"
    result = edgebit(
        "build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", out, "--layout", asked
    )
    assert result.exit_code == 0, result.output
    place = open_bundle(out).member("model.ebm")
    with ModelFile(place.path, place.offset, place.size) as model:
        assert model.meta["quantisation"]["layout"] == stored
        assert all(t.encoding.name.lower() == stored for t in model.tensors if t.role.is_projection)
    assert ("layout t2: " in result.output) == (asked == "auto")
    assert "  engine   the installed one\n" in result.output
    assert "golden probes ran on this machine, with all it has and with scalar alone\n" in result.output


def test_a_model_file_of_token_ids_alone_is_noted(native, reference_checkpoint, tmp_path):
    """A daemon on the device could not answer with it."""
    edgebit("convert", reference_checkpoint("llama-master"), "--out", tmp_path / "odd.ebm")

    result = edgebit("build", tmp_path / "odd.ebm", "--target", "host", "--out", tmp_path / "odd.bundle")

    assert "odd.ebm has no tokenizer: it takes token ids only" in " ".join(result.output.split())


def test_default_name_is_of_model_and_target(native, reference_checkpoint, tmp_path, monkeypatch):
    """Without --out the bundle lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host")

    assert left_in(tmp_path) == ["bitnet-packed-host.bundle"]


def test_bundle_that_is_there_is_kept(bundle, reference_checkpoint):
    """Unless --force says otherwise."""
    before = bundle.read_bytes()
    with pytest.raises(BuildError, match=r"there already.*--force"):
        edgebit("build", reference_checkpoint("bitnet-bf16"), "--target", "host", "--out", bundle)
    assert bundle.read_bytes() == before

    edgebit("build", reference_checkpoint("bitnet-bf16"), "--target", "host", "--out", bundle, "--force")
    assert bundle.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "error", "promised"),
    [
        (["{packed}", "--target", "nope"], TargetError, "no target 'nope'"),
        (["{tmp}/empty", "--target", "host"], CheckpointError, "config.json"),
        (["{tmp}/text.ebm", "--target", "host"], BuildError, "folder or GGUF file nor a model file"),
        (["{packed}", "--target", "host", "--out", "{tmp}/no/x.bundle"], BuildError, "mkdir -p"),
        (["{packed}", "--target", "host", "--out", "{tmp}/empty"], BuildError, "is a folder"),
        (["{packed}", "--target", "host", "--out", "{tmp}/" + 300 * "x"], BuildError, "too long"),
        (["{packed}", "--target", "host", "--out", "/dev/null", "--force"], BuildError, "no plain file"),
        (["{tmp}/magic.ebm", "--target", "host", "--embedding", "int8"], BuildError, "Leave --embedding out"),
        (
            ["{packed}", "--target", "rpi", "--builder", "docker", "--out", "{tmp}/x"],
            BuildError,
            "no container engine.*--builder zig",
        ),
    ],
)
def test_failed_build_says_why_and_leaves_nothing(
    native, reference_checkpoint, tmp_path, monkeypatch, arguments, error, promised
):
    """The message says what to do; the folder is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ebm").write_text("hello")
    (tmp_path / "magic.ebm").write_bytes(MAGIC)
    packed = reference_checkpoint("bitnet-packed")

    with pytest.raises(error, match=promised):
        edgebit("build", *(argument.format(packed=packed, tmp=tmp_path) for argument in arguments))

    assert left_in(tmp_path) == ["empty", "magic.ebm", "text.ebm"]
    assert left_in(tmp_path / "empty") == []


@pytest.mark.parametrize("folder", ["/proc", "/sys"])
def test_a_place_that_takes_no_files_is_named(native, reference_checkpoint, folder):
    """As it was given, and not by the name of a folder of ours that could not be made."""
    out = f"{folder}/x.bundle"

    with pytest.raises(BuildError, match=f"^--out {out}: nothing can be made there: ") as caught:
        edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", out)

    assert caught.value.exit_code == 6


def test_nothing_is_converted_for_a_builder_that_is_not_there(reference_checkpoint, tmp_path, monkeypatch):
    """Converting takes minutes, and finding out takes none."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens")
    monkeypatch.setattr(build_service, "convert", lambda *_, **options: pytest.fail("it converts"))
    checkpoint = reference_checkpoint("bitnet-packed")

    with pytest.raises(BuildError, match="no container engine"):
        edgebit("build", checkpoint, "--target", "rpi", "--builder", "docker", "--out", tmp_path / "x")


def test_nothing_is_said_of_what_is_no_checkpoint(native, tmp_path):
    """The error is all there is to read."""
    (tmp_path / "empty").mkdir()
    arguments = ["build", str(tmp_path / "empty"), "--target", "host", "--out", str(tmp_path / "x")]

    result = CliRunner().invoke(cli, arguments, standalone_mode=False)

    assert isinstance(result.exception, CheckpointError)
    assert "layout" not in result.output


def test_damaged_model_file_is_refused(bundle, tmp_path):
    """A model file is read before it enters a bundle."""
    model = tmp_path / "model.ebm"
    open_bundle(bundle).extract("model.ebm", model)
    model.write_bytes(model.read_bytes()[:-5000])

    with pytest.raises(BundleError, match=r"model\.ebm"):
        edgebit("build", model, "--target", "host", "--out", tmp_path / "x.bundle")

    assert not (tmp_path / "x.bundle").exists()


def test_artifact_that_fails_a_check_is_not_bundled(native, reference_checkpoint, tmp_path, monkeypatch):
    """Nothing is written."""
    monkeypatch.setattr(build_service, "check_native", lambda *_: [Check("page alignment", "failed", "4096")])

    with pytest.raises(BuildError, match="page alignment: 4096"):
        edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", tmp_path / "x.bundle")

    assert left_in(tmp_path) == []


def test_full_disk_is_said_and_cleared(native, reference_checkpoint, tmp_path, monkeypatch):
    """With the room that a build needs."""

    def full(*_: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build_service, "write_archive", full)

    with pytest.raises(BuildError, match=r"is full.*twice the model's size"):
        edgebit("build", reference_checkpoint("bitnet-packed"), "--target", "host", "--out", tmp_path / "x.bundle")

    assert left_in(tmp_path) == []


@pytest.mark.usefixtures("hang_up_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_build_leaves_nothing(native, reference_checkpoint, tmp_path, number):
    """Ctrl-C, kill and a terminal that goes away end it with 130 and a clean folder."""
    slow = (
        "import time, edgebit.build as b; from edgebit.cli import main;"
        "b.write_archive = lambda *_, **options: (print('now', flush=True), time.sleep(60)); main()"
    )
    out = tmp_path / "x.bundle"
    arguments = ["build", str(reference_checkpoint("bitnet-packed")), "--target", "host", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        assert left_in(tmp_path) != []
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert (process.returncode, "stopped" in said) == (130, True)
    assert left_in(tmp_path) == []


# ---- verify ----


def rewritten(bundle: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """The bundle as a folder, after `change`."""
    shutil.unpack_archive(bundle, folder, "tar")
    change(folder)
    return folder


def flip(folder: Path, name: str, at: float) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.ebm", "lib/libedgebit.so", "edgebitd.pyz", "service/edgebit-daemon.service"])
def test_verify_finds_a_flipped_bit(bundle, tmp_path, name):
    """Names the file, ends with exit code 3, and does not execute what is damaged."""
    folder = rewritten(bundle, tmp_path / "f", lambda folder: flip(folder, name, 0.9))

    result = edgebit("verify", folder, "--json")

    report = json.loads(result.output)
    failed = {check["name"] for check in report["checks"] if check["status"] == "failed"}
    assert result.exit_code == 3
    assert f"SHA-256 of {name}" in failed
    assert [c["status"] for c in report["checks"] if c["name"] == "probes on the target"] == ["not run"]


def test_verify_reads_more_than_sums(bundle, tmp_path):
    """A manifest that was made to fit a changed model: the golden probes still tell."""

    def change(folder: Path) -> None:
        flip(folder, "model.ebm", 0.6)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["model.ebm"]["sha256"] = hashlib.sha256((folder / "model.ebm").read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    result = edgebit("verify", rewritten(bundle, tmp_path / "f", change), "--json")

    failed = {check["name"] for check in json.loads(result.output)["checks"] if check["status"] == "failed"}
    assert result.exit_code == 3
    assert failed == {"model file"}


def test_verify_of_what_is_no_bundle(tmp_path):
    """One failed check with the reason, not a traceback."""
    path = tmp_path / "x"
    path.write_text("hello")

    result = edgebit("verify", path)

    assert result.exit_code == 3
    assert f"{path} is not a bundle" in result.output


@pytest.mark.parametrize("kind", ["GGUF file", "checkpoint"])
def test_verify_of_a_checkpoint(kind, tmp_path):
    """The failed check says what it is, and what it becomes a model file with."""
    path = tmp_path / "x"
    if kind == "checkpoint":
        path.mkdir()
        (path / "config.json").write_text("{}")
    else:
        path.write_bytes(b"GGUF" + bytes(1000))

    result = edgebit("verify", path, "--json")

    check, *others = json.loads(result.output)["checks"]
    assert result.exit_code == 3
    assert not others and check["status"] == "failed"
    assert f"{path} is a {kind}" in check["detail"] and f"edgebit convert {path}" in check["detail"]


def test_verify_needs_rebuild_for_a_builder(bundle):
    """A builder that nothing is built with is a slip."""
    result = edgebit("verify", bundle, "--builder", "zig")

    assert isinstance(result.exception, click.UsageError)


def test_verify_executes_nothing_of_a_stranger(bundle):
    """--no-run says so in its row."""
    report = json.loads(edgebit("verify", bundle, "--no-run", "--json").output)

    assert report["ok"]
    assert [c["status"] for c in report["checks"] if c["name"] == "probes on the target"] == ["not run"]


# ---- the whole way for another architecture ----


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("builder", ["zig", "system"])
def test_pi_bundle_from_either_builder(require_tool, reference_checkpoint, tmp_path, builder):
    """Built, and its probes ran on three emulated Pis; a second build compiles nothing; verify leaves nothing out."""
    require_tool("qemu-aarch64-static")
    require_tool("aarch64-linux-gnu-objdump")
    if builder == "system":
        require_tool("aarch64-linux-gnu-gcc")
    arguments = ["build", reference_checkpoint("bitnet-packed"), "--target", "rpi", "--builder", builder, "--json"]
    arguments.append("--onnx-library")
    edgebit(*arguments, "--out", tmp_path / "one")
    began = time.monotonic()
    again = json.loads(edgebit(*arguments, "--out", tmp_path / "two").stdout)

    probes = [check for check in again["checks"] if check["name"].startswith("probes on cortex")]
    assert [check["status"] for check in probes] == ["passed"] * 3
    assert again["native_from_cache"] and again["seconds"]["native files"] < time.monotonic() - began
    assert "lib/libedgebit_ort.so" in again["manifest"]["files"]
    verified = edgebit("verify", tmp_path / "two", "--rebuild", "--json")
    checks = json.loads(verified.stdout)["checks"]
    assert verified.exit_code == 0, verified.output
    assert {check["name"] for check in checks if check["status"] != "passed"} == {"signature"}
    assert {group: sum(check["group"] == group for check in checks) for group in ("at work", "reproducible")} == {
        "at work": 11, "reproducible": 1,
    }  # fmt: skip


# ---- completion ----


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell):
    """A script of that shell, and how to install it."""
    output = edgebit("completion", shell).output

    assert "_EDGEBIT_COMPLETE" in output
    assert "# install: " in output


def test_bash_completes_commands(require_tool, tmp_path):
    """The printed script works in a real bash."""
    program = tmp_path / "edgebit"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m edgebit \"$@\"\n")
    program.chmod(0o755)
    script = tmp_path / "completion.sh"
    script.write_text(edgebit("completion", "bash").output)
    words = "COMP_WORDS=(edgebit ver); COMP_CWORD=1"
    ask = f'source {script}; {words}; _edgebit_completion edgebit; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        [require_tool("bash"), "-c", ask], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip

    assert done.stdout.split() == [name for name in COMMANDS if name.startswith("ver")]
    assert shutil.which("edgebit", path=str(tmp_path))


def test_completion_offers_targets():
    """The Tab key after --target knows the devices."""
    done = subprocess.run(
        [sys.executable, "-m", "edgebit"], capture_output=True, text=True, check=False,
        env={**os.environ, "_EDGEBIT_COMPLETE": "bash_complete", "COMP_WORDS": "edgebit build --target rpi",
             "COMP_CWORD": "3"},
    )  # fmt: skip

    assert "plain,rpi4" in done.stdout.split()
