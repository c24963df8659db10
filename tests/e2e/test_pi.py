"""From a checkpoint to an answer over MQTT, on an emulated Raspberry Pi: Debian 12 for aarch64 under qemu-user.

Real sshd, real Python, the real cross-built library, real mosquitto and its clients. The tests go on from one another:
they are one story, in the order they stand.
"""

import dataclasses
import json
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from signing_keys import make_key, signing

from edgebit.bundle.archive import hash_file, open_bundle, write_archive
from edgebit.bundle.model_format import HEADER, SECTION
from edgebit.keys import Signing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PROMPT = "turn on the light"


def unpack(bundle: Path, folder: Path) -> dict[str, Path]:
    """A bundle's files as plain ones, by name."""
    folder.mkdir()
    opened, files = open_bundle(bundle), {}
    for name in opened.members:
        files[name] = folder / name.replace("/", "-")
        opened.extract(name, files[name])
    return files


def pack(like: Path, files: dict[str, Path], out: Path, signed: Signing | None = None) -> Path:
    """A bundle of changed files whose manifest is right about them."""
    manifest = dataclasses.replace(
        open_bundle(like).manifest,
        name=out.stem,
        files={name: hash_file(path) for name, path in files.items()},
        release=signed.release if signed else None,
    )
    write_archive(out, manifest, files, sign=signed.sign if signed else None)
    return out


def with_wrong_probe(model: bytes) -> bytes:
    """The model file with one bit of its first golden probe turned over, and every sum in it right again."""
    import zlib

    data = bytearray(model)
    magic, version, count, size, _, _, _ = HEADER.unpack_from(data)
    for place in range(HEADER.size, HEADER.size + count * SECTION.size, SECTION.size):
        tag, _, offset, length, reserved = SECTION.unpack_from(data, place)
        if tag == b"PROB":
            logits_crc = offset + 8 + 12
            data[logits_crc] ^= 1
            crc = zlib.crc32(data[offset : offset + length])
            SECTION.pack_into(data, place, tag, crc, offset, length, reserved)
    table_crc = zlib.crc32(data[HEADER.size : HEADER.size + count * SECTION.size])
    first = HEADER.pack(magic, version, count, size, table_crc, 0, b"")
    data[: HEADER.size] = HEADER.pack(magic, version, count, size, table_crc, zlib.crc32(first[:28]), b"")
    assert bytes(data) != model
    return bytes(data)


def test_dry_run_changes_nothing(pi, bundle):
    """The plan has the bytes of the whole bundle, and the device stays as it is."""
    done = pi.deploy(bundle, "--dry-run", "--json")

    plan = json.loads(done.stdout)
    assert plan["bytes_to_send"] == sum(entry.size for entry in open_bundle(bundle).manifest.files.values())
    assert not pi.files.exists()


def test_first_deploy(pi, bundle):
    """The bundle arrives, its golden probes hold bit for bit on aarch64, and the daemon answers."""
    outcome = json.loads(pi.deploy(bundle, "--json").stdout)

    assert outcome["probes"] > 0
    assert outcome["sent_bytes"] == sum(entry.size for entry in open_bundle(bundle).manifest.files.values())
    status = pi.status()
    assert status["probe"]["arch"] == "aarch64"
    assert status["slots"][status["active"]]["status"] == "good"
    assert outcome["isa"] in ("neon", "dotprod", "i8mm"), "the engine is the one for aarch64"


def test_doctor_finds_nothing_that_fails(pi):
    """Asked over ssh: the device, its engine, its broker and its daemon; what it has not is warned about or unknown."""
    before = sorted(pi.files.rglob("*"))
    report = json.loads(pi.on_device("doctor", pi.url, "--json").stdout)

    found = {finding["name"]: finding for finding in report["findings"] if finding["group"] != "this machine"}
    well = ("reachable", "architecture", "ISA level", "Python", "memory", "disk", "folder", "page size", "clock",
            "installed", "running", "broker", "answers", "log")  # fmt: skip
    assert report["ok"]
    assert {name: found[name]["state"] for name in well} == dict.fromkeys(well, "ok")
    assert "by the engine that is there" in found["ISA level"]["detail"]
    assert found["service manager"]["state"] == found["starts at boot"]["state"] == "warn", "it has no systemd"
    assert sorted(pi.files.rglob("*")) == before


@pytest.mark.parametrize("version", ["5", "311"])
def test_answers_mosquitto_rr(pi, version):
    """Request and response, with MQTT 5's properties and with 3.1.1's fields, give the same text."""
    reply = pi.request(PROMPT, version=version)

    assert reply["t"] == "done"
    assert reply["text"]
    assert reply["text"] == pi.request(PROMPT)["text"]


@pytest.mark.parametrize("version", ["5", "311"])
def test_streams_to_mosquitto_sub(pi, version):
    """Frames come in order, and their pieces are the whole text of the last."""
    topic = "edgebit/v1/pi/out/tester/stream"
    port = str(pi.broker_port)
    listener = subprocess.Popen(
        ["mosquitto_sub", "-p", port, "-V", version, "-q", "1", "-t", f"{topic}{version}", "-W", "60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1)
    body = {"id": f"stream{version}", "stream": True, "prompt": PROMPT, "options": {"num_predict": 8, "temperature": 0}}
    asked = "edgebit/v1/pi/in/tester/generate"
    subprocess.run(
        ["mosquitto_pub", "-p", port, "-V", version, "-q", "1", "-t", asked, "-m", json.dumps(body)], check=True
    )

    frames = []
    assert listener.stdout is not None
    for line in listener.stdout:
        frames.append(json.loads(line))
        if frames[-1]["t"] != "delta":
            break
    listener.send_signal(signal.SIGTERM)
    listener.wait(timeout=10)

    assert [frame["seq"] for frame in frames] == list(range(len(frames)))
    assert frames[-1]["t"] == "done"
    assert "".join(frame["d"] for frame in frames[:-1]) == frames[-1]["text"] != ""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("stream", [True, False])
def test_answers_edgebit_ask(pi, protocol, stream):
    """The project's own client, streamed and not, in both versions of MQTT."""
    flags = [] if stream else ["--no-stream"]
    asked = ["ask", "--device", "pi", "--broker", pi.broker, "--protocol", protocol, "--raw", "--temperature", "0"]

    answer = pi.edgebit(*asked, "-n", "8", *flags, PROMPT).stdout.rstrip("\n")

    assert answer.strip() == pi.request(PROMPT, raw=True)["text"].strip() != ""


def test_killed_mid_answer_it_comes_back(pi):
    """kill -9 between the first frame and the last: it is up again by itself, ends that answer, and gives others."""
    pid = pi.status()["pid"]
    # Its form lets no answer end before the context is full; the hand is on the trigger before it begins.
    form = {"type": "string", "minLength": 100_000}
    options = {"num_predict": 2000, "temperature": 10, "top_k": 0, "top_p": 1, "seed": 1}
    body = {"id": "long", "stream": True, "prompt": PROMPT, "raw": True, "format": form, "options": options}
    killer = pi.start_shell(f"read -r go && kill -9 {pid} && echo killed")
    topics = ["-t", "edgebit/v1/pi/out/tester/long", "-t", "edgebit/v1/pi/availability"]
    listener = subprocess.Popen(
        ["mosquitto_sub", "-p", str(pi.broker_port), "-W", "180", *topics], stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    assert json.loads(listener.stdout.readline())["state"] == "online", "what is retained comes first: it listens"
    subprocess.run(
        ["mosquitto_pub", "-p", str(pi.broker_port), "-q", "1", "-t", "edgebit/v1/pi/in/tester/generate", "-m",
         json.dumps(body)], check=True
    )  # fmt: skip
    heard = (json.loads(line) for line in listener.stdout)
    frames = (message for message in heard if "t" in message)
    assert next(frames)["t"] == "delta"
    said, _ = killer.communicate("go\n", timeout=30)
    assert said == "killed\n"
    end = next((frame for frame in frames if frame["t"] != "delta"), None)
    listener.kill()
    listener.wait()
    assert end is not None and end["error"]["code"] == "interrupted", end

    deadline = time.monotonic() + 120
    while (status := pi.status())["pid"] in (None, pid):
        assert time.monotonic() < deadline, status
    assert pi.request(PROMPT)["t"] == "done"


def test_second_deploy_sends_only_the_difference(pi, bundle, tmp_path):
    """Another daemon file, the same model and library: only the daemon goes over the line."""
    files = unpack(bundle, tmp_path / "files")
    with zipfile.ZipFile(files["edgebitd.pyz"], "a") as archive:
        archive.writestr("second.txt", "this makes it another file")
    second = pack(bundle, files, tmp_path / "second.bundle")

    outcome = json.loads(pi.deploy(second, "--json").stdout)

    assert outcome["sent_files"] == 1
    assert outcome["sent_bytes"] == files["edgebitd.pyz"].stat().st_size
    assert pi.request(PROMPT)["t"] == "done"


def test_rollback(pi, bundle):
    """The first bundle runs again."""
    pi.on_device("rollback", pi.url)

    status = pi.status()
    assert status["slots"][status["active"]]["id"] == open_bundle(bundle).id
    assert pi.request(PROMPT)["t"] == "done"


def test_wrong_golden_probe_is_refused(pi, bundle, tmp_path):
    """A bundle whose engine would not compute what its model file says: refused, and the old one never stops."""
    files = unpack(bundle, tmp_path / "files")
    files["model.ebm"].write_bytes(with_wrong_probe(files["model.ebm"].read_bytes()))
    wrong = pack(bundle, files, tmp_path / "wrong.bundle")
    before = pi.status()

    done = pi.deploy(wrong, code=8)

    assert "self-test failed" in done.stderr
    after = pi.status()
    assert (after["pid"], after["active"]) == (before["pid"], before["active"])
    assert pi.request(PROMPT)["t"] == "done"


def test_silent_bundle_is_taken_back(pi, bundle, tmp_path):
    """A daemon that starts but does not answer: the old bundle is back by itself, and the exit code says so."""
    files = unpack(bundle, tmp_path / "files")
    silent = tmp_path / "silent.pyz"
    with zipfile.ZipFile(files["edgebitd.pyz"]) as old, zipfile.ZipFile(silent, "w") as new:
        for name in set(old.namelist()) - {"__main__.py"}:
            new.writestr(name, old.read(name))
        main = "import sys, time\nif sys.argv[1] == 'run':\n    print('silent', flush=True)\n    time.sleep(3600)\n"
        new.writestr("__main__.py", main + "from edgebit.daemon.__main__ import main\nsys.exit(main())\n")
    mute = pack(bundle, {**files, "edgebitd.pyz": silent}, tmp_path / "mute.bundle")

    done = pi.deploy(mute, "--timeout", "15", code=8)

    assert "was taken back: the daemon did not answer a ping within 15 s" in done.stderr
    status = pi.status()
    assert status["slots"][status["active"]]["id"] == open_bundle(bundle).id
    assert pi.request(PROMPT)["t"] == "done"


def test_signed_bundle_closes_the_device(pi, bundle, tmp_path):
    """The device's own Python checks signatures: the first one pins its key, and the unsigned bundle is refused."""
    key, stranger = make_key(1), make_key(2)
    files = unpack(bundle, tmp_path / "files")
    signed = pack(bundle, files, tmp_path / "signed.bundle", signing(key, sequence=5))
    other = pack(bundle, files, tmp_path / "other.bundle", signing(stranger, sequence=6))

    pi.deploy(signed, "--trust", str(key.public))

    assert pi.status()["trust"] == {"keys": [key.public.id], "unsigned": "refuse", "floor": 5}
    assert pi.request(PROMPT)["t"] == "done"
    for refused in (bundle, other):
        assert f"only bundles signed by key {key.public.id}" in " ".join(pi.deploy(refused, code=3).stderr.split())
    by_hand = pi.shell("python3 .local/share/edgebit/active/edgebitd.pyz agent --root .local/share/edgebit judge"
                       f" <<'END' 2>&1 || true\n{open_bundle(bundle).manifest_bytes.decode()}END\n")  # fmt: skip
    assert "is not signed" in by_hand
    assert pi.request(PROMPT)["t"] == "done"


def test_logs(pi):
    """The daemon's own lines and the supervisor's."""
    assert "supervisor: starting bundle" in pi.on_device("logs", pi.url, "-n", "200").stdout


def test_uninstall_leaves_nothing(pi):
    """No file and no process of edgebit stays."""
    pi.on_device("uninstall", pi.url, "--yes")

    assert not pi.files.exists()
    processes = pi.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "edgebitd.pyz" not in processes
    assert "no edgebit on" in pi.on_device("status", pi.url, code=8).stderr
