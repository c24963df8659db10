"""Exports: what stands in the files, and that the programs in them speak their manager's protocol."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edgebit.errors import BuildError
from edgebit.fleet import export
from edgebit.fleet.oci_image import write_image

# An agent that notes how it is called, in place of the real one; tests/fleet/test_managers.py has the real one.
AGENT = """
import json, sys
root, (verb, *args) = sys.argv[3], sys.argv[4:]
with open(root + "/calls", "a") as calls:
    print(sys.argv[0].endswith("active/edgebitd.pyz"), verb, *args, file=calls)
acts = json.load(open(root + "/acts"))
if verb in acts.get("fails", {}):
    sys.exit(acts["fails"][verb])
if verb == "install":
    print(json.dumps({"id": "0123456789abcdef", "slot": acts.get("slot", "b")}))
if verb == "status":
    print(json.dumps({"active": "a", "slots": {"a": {"name": "chat", "id": "0123456789abcdef"}}}))
"""


@pytest.fixture
def make_bundle(write_bundle):
    """Makes a bundle of a few bytes for a 64-bit ARM device."""

    def make(name="chat", triple="aarch64-linux-gnu"):
        files = {member: member for member in ("model.ebm", "lib/libedgebit.so", "bin/edgebit-run")}
        return write_bundle(name, triple, {**files, "edgebitd.pyz": AGENT})

    return make


class Device:
    """A folder that stands for a device with edgebit, whose agent notes its calls."""

    def __init__(self, root, bare):
        self.root = root
        root.mkdir()
        if not bare:
            (root / "active").mkdir()
            (root / "active" / "edgebitd.pyz").write_text(AGENT)
        self.acts()

    def acts(self, **acts):
        (self.root / "acts").write_text(json.dumps(acts))

    def calls(self):
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "root", bare=False)


@pytest.fixture
def bare_device(tmp_path):
    return Device(tmp_path / "root", bare=True)


def call(script, *args, stdin="", code=0):
    """Run a program as a manager does; gives what it printed."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    argv = [str(script), *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, input=stdin, env=environment)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def module(make_bundle, tmp_path):
    """The Mender update module for the device, and the tree that Mender gives it."""
    bundle = make_bundle()
    script = export._script(tmp_path / "mender", "mender", str(tmp_path / "root"))
    tree = tmp_path / "tree"
    (tree / "tmp").mkdir(parents=True)
    (tree / "files").mkdir()
    (tree / "files" / "chat.bundle").write_bytes(bundle.path.read_bytes())
    return lambda state, **named: call(script, state, tree, **named)


def test_mender_asks_what_the_module_can(module, device):
    """No reboot, a way back, and silence about what it does not know."""
    assert module("NeedsArtifactReboot") == "No\n"
    assert module("SupportsRollback") == "Yes\n"
    for state in ("Download", "ArtifactReboot", "ArtifactVerifyReboot", "ArtifactFailure", "Cleanup", "Unheard"):
        assert module(state) == ""
    assert device.calls() == []


@pytest.mark.parametrize(("last", "verb"), [("ArtifactCommit", "commit"), ("ArtifactRollback", "retract")])
def test_mender_has_the_last_word(module, device, last, verb):
    """Installed on trial, then kept or taken back, each by the agent that is on the device."""
    module("ArtifactInstall")
    (install,) = device.calls()
    assert install.startswith("True install --on-trial ") and install.endswith("/files/chat.bundle")
    module(last)
    assert device.calls() == [f"True {verb} 0123456789abcdef"]


def test_mender_undoes_nothing_that_was_there_before(module, device):
    """The same bundle again: neither its commit nor its rollback touches the device."""
    device.acts(slot="")
    module("ArtifactInstall")
    device.calls()
    module("ArtifactCommit")
    module("ArtifactRollback")
    assert device.calls() == []


def test_mender_hears_of_failures(module, device):
    """In each state, so that it goes on to the error states; a failed install has gone back by itself."""
    device.acts(fails={"install": 8})
    module("ArtifactInstall", code=1)
    device.calls()
    module("ArtifactRollback")
    assert device.calls() == []
    device.acts(fails={"commit": 8, "retract": 8})
    module("ArtifactInstall")
    module("ArtifactCommit", code=1)
    module("ArtifactRollback", code=1)


def test_the_first_bundle_brings_its_agent(module, bare_device):
    """Nothing else could install it."""
    module("ArtifactInstall")
    assert bare_device.calls()[0].startswith("False install ")


@pytest.mark.parametrize("names", [[], ["one.bundle", "two.bundle"], ["other.txt"]])
def test_mender_artifacts_hold_one_bundle(module, device, tmp_path, names):
    """Others are refused."""
    (tmp_path / "tree" / "files" / "chat.bundle").unlink()
    for name in names:
        (tmp_path / "tree" / "files" / name).write_text("")
    module("ArtifactInstall", code=1)
    assert device.calls() == []


@pytest.fixture
def plugin(make_bundle, tmp_path):
    """The thin-edge plugin for the device."""
    (script, _) = export.export_thin_edge(make_bundle(), tmp_path / "thin-edge", root=str(tmp_path / "root"))
    return lambda *args, **named: call(script, *args, **named)


def test_thin_edge_lists_what_runs(plugin, device):
    """Name and version, with a tabulator between."""
    assert plugin("list") == "chat\t0123456789abcdef\n"


def test_thin_edge_lists_nothing_on_a_bare_device(plugin, bare_device):
    """And that is no error, or the plugin would be dropped."""
    assert plugin("list") == ""


def test_thin_edge_installs_what_it_names(plugin, device):
    """Name, version and file; before and after there is nothing to do."""
    plugin("prepare")
    plugin("install", "chat", "--module-version", "0123456789abcdef", "--file", "/a b/chat.bundle")
    plugin("finalize")
    assert device.calls() == [
        "True install --name chat --id 0123456789abcdef --timeout-s 60 /a b/chat.bundle"
    ]  # fmt: skip


@pytest.mark.parametrize(("agent", "code"), [(8, 2), (3, 2), (13, 2), (10, 3), (12, 2)])
def test_thin_edge_hears_whether_to_try_again(plugin, device, agent, code):
    """Only a broker out of reach may be there later; the agent's own codes are never passed on."""
    device.acts(fails={"install": agent, "uninstall": agent})
    plugin("install", "chat", "--file", "x.bundle", code=code)
    plugin("remove", "chat", code=code)


def test_thin_edge_needs_a_file(plugin, device):
    """There is no repository to fetch from."""
    plugin("install", "chat", code=2)
    assert device.calls() == []


@pytest.mark.parametrize(
    ("args", "removed"),
    [
        (["chat"], True),
        (["chat", "--module-version", "0123456789abcdef"], True),
        (["chat", "--module-version", "another"], False),
        (["cha"], False),
        (["other"], False),
    ],
)
def test_thin_edge_removes_only_what_it_names(plugin, device, args, removed):
    """What is not there is no error; settings stay."""
    plugin("remove", *args)
    assert device.calls() == ["True status", *(["True uninstall --keep-config"] if removed else [])]


def test_thin_edge_gives_a_list_at_once(plugin, device):
    """Line by line, with empty fields, and no further than the first that fails."""
    first = "install\tchat\t0123456789abcdef\t/tmp/a.bundle\n"
    lines = first + "install\tmore\t\t/tmp/b c.bundle\nremove\tother\nremove\tchat\t"
    plugin("update-list", stdin=lines)
    assert device.calls() == [
        "True install --name chat --id 0123456789abcdef --timeout-s 60 /tmp/a.bundle",
        "True install --name more --id  --timeout-s 60 /tmp/b c.bundle",
        "True status",
        "True status",
        "True uninstall --keep-config",
    ]
    device.acts(fails={"install": 8})
    plugin("update-list", stdin=lines, code=2)
    assert len(device.calls()) == 1
    plugin("update-list", stdin="upgrade\tchat\n", code=1)


@pytest.mark.parametrize(
    "args",
    [[], ["upgrade"], ["list", "x"], ["install"], ["install", "chat", "--file"], ["remove", "chat", "--file", "x"]],
)
def test_thin_edge_usage(plugin, device, args):
    """Exit code 1, and nothing was begun."""
    plugin(*args, code=1)
    assert device.calls() == []


@pytest.mark.parametrize("root", ["relative", "/a b", "/a;b", "/a/../b", "/a$b", '/a"b'])
def test_a_root_is_a_plain_path(make_bundle, tmp_path, root):
    """It is written into a program."""
    with pytest.raises(BuildError, match="Choose another --root"):
        export.export_thin_edge(make_bundle(), tmp_path / "out", root=root)


def test_without_mender_artifact_the_command_is_said(make_bundle, tmp_path, monkeypatch):
    """And how to have it; the update module is written all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BuildError, match=r"apt install mender-artifact.* write module-image --type edgebit .*--device-type pi"
    ):
        export.export_mender(make_bundle(), tmp_path / "out", device_types=["pi"])
    assert (tmp_path / "out" / "edgebit").stat().st_mode & 0o111


def cpio_entries(data):
    """Name -> (content, mode) of a cpio archive in the format with checksums, which are compared."""
    entries, position = {}, 0
    while True:
        assert data[position : position + 6] == b"070702"
        fields = [int(data[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        name = data[position + 110 : position + 109 + length].decode()
        begin = position + 110 + length
        begin += -begin % 4
        content = data[begin : begin + size]
        assert sum(content) & 0xFFFFFFFF == fields[12]
        if name == "TRAILER!!!":
            return entries
        entries[name] = (content, fields[1])
        position = begin + size + -size % 4


def test_an_update_for_swupdate_describes_itself_first(make_bundle, tmp_path):
    """Description, bundle and script, with the sums of the two in it; the same bytes each time."""
    bundle = make_bundle()
    options = {"hardware": ["1.0", "rev_B"], "root": "/data/edgebit"}
    (update,) = export.export_hawkbit(bundle, tmp_path / "out", **options)

    entries = cpio_entries(update.read_bytes())
    name = f"chat-{bundle.id}.bundle"
    assert list(entries) == ["sw-description", name, "edgebit-install"]
    description = entries["sw-description"][0].decode()
    for file in (name, "edgebit-install"):
        assert f'sha256 = "{hashlib.sha256(entries[file][0]).hexdigest()}"' in description
    assert 'hardware-compatibility: [ "1.0", "rev_B" ]' in description
    assert f'version = "0.0.0+{bundle.id}"' in description and "@" not in description
    assert entries[name][0] == bundle.path.read_bytes()
    script, mode = entries["edgebit-install"]
    assert mode & 0o111 and b"root=/data/edgebit\n" in script
    (again,) = export.export_hawkbit(bundle, tmp_path / "again", **options)
    assert again.read_bytes() == update.read_bytes()


@pytest.mark.parametrize(
    ("options", "promised"),
    [
        ({"hardware": ['1.0" ]; x = [ "']}, "is not made of letters"),
        ({"hardware": ["1.0"], "root": "relative"}, "Choose another --root"),
        ({"hardware": ["1.0"], "certificate": Path("c.pem")}, "go together"),
        ({"hardware": ["1.0"], "certificate": Path("no.pem"), "key": Path("no.key")}, "cannot sign|no openssl"),
    ],
)
def test_what_cannot_stand_in_an_update_is_refused(make_bundle, tmp_path, options, promised):
    """And no file is left."""
    with pytest.raises(BuildError, match=promised):
        export.export_hawkbit(make_bundle(), tmp_path / "out", **options)
    assert not list(tmp_path.glob("out/*.swu*"))


def layout(folder, arch="arm64", os_name="linux"):
    """An OCI layout with one small image."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"), None)
    layer = add(sink.getvalue())
    config = {
        "os": os_name, "architecture": arch, "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }  # fmt: skip
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": f"{kind}.config.v1+json", **add(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar", **layer}],
    }
    entry = {"mediaType": f"{kind}.manifest.v1+json", **add(json.dumps(manifest).encode())}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def read_image(path):
    """Manifest, config, and the files of the last layer, with every digest checked."""
    with tarfile.open(path) as tar:
        blobs = {name: tar.extractfile(name).read() for name in tar.getnames()}
    for name, data in blobs.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]

    def blob(descriptor):
        data = blobs["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(data) == descriptor["size"]
        return data

    manifest = json.loads(blob(json.loads(blobs["index.json"])["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][-1]))) as layer:
        return manifest, config, {member.name: member for member in layer}


def test_an_image_is_the_base_and_one_layer(make_bundle, tmp_path):
    """Its digests hold, it runs the daemon as nobody's user, and it is the same bytes from a folder and from a tar."""
    bundle, base = make_bundle(), layout(tmp_path / "base")
    image = tmp_path / "image.tar"

    write_image(image, bundle, base, "edgebit:test")

    manifest, config, members = read_image(image)
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 2
    assert manifest["layers"][1]["digest"] == config["rootfs"]["diff_ids"][1]
    assert config["config"]["Entrypoint"][:2] == ["python3", "/opt/edgebit/edgebitd.pyz"]
    assert config["config"]["User"] == "10001" and config["config"]["Env"] == ["PATH=/bin"]
    assert "Cmd" not in config["config"]
    assert {f"opt/edgebit/{name}" for name in [*bundle.members, "manifest.json"]} < set(members)
    assert members["opt/edgebit/bin/edgebit-run"].mode == 0o755 and members["var/lib/edgebit"].uid == 10001
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        tar.add(base, ".")
    write_image(tmp_path / "again.tar", bundle, tmp_path / "base.tar", "edgebit:test")
    assert (tmp_path / "again.tar").read_bytes() == image.read_bytes()


def damage_layer(base):
    layer = max((base / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("spoil", "promised"),
    [
        (damage_layer, "is damaged: blob sha256:"),
        (lambda base: (base / "index.json").unlink(), "cannot be read"),
        (lambda base: (base / "index.json").write_text("{}"), "is no OCI layout"),
        (lambda base: (base / "index.json").write_text('{"manifests": [{"mediaType": 3, "digest": 4}]}'), "no image"),
        (
            lambda base: (base / "index.json").write_text(
                '{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",'
                ' "digest": "sha256:../../etc/passwd", "size": 3}]}'
            ),
            "a digest that is no SHA-256",
        ),
    ],
)
def test_a_base_that_is_none_is_refused(make_bundle, tmp_path, spoil, promised):
    """And nothing is left of the image."""
    base = layout(tmp_path / "base")
    spoil(base)

    with pytest.raises(BuildError, match=promised):
        write_image(tmp_path / "image.tar", make_bundle(), base, "x")

    assert not list(tmp_path.glob("image.tar*"))


def test_a_base_for_another_cpu_is_refused(make_bundle, tmp_path):
    """Naming the two."""
    base = layout(tmp_path / "base", arch="amd64")
    with pytest.raises(BuildError, match="holds no image for linux/arm64, only for amd64"):
        write_image(tmp_path / "image.tar", make_bundle(), base, "x")
    with pytest.raises(BuildError, match="no images for m68k"):
        export.export_oci(make_bundle("odd", "m68k-linux-gnu"), tmp_path / "out")


@pytest.mark.parametrize(
    ("image", "mqtt", "promised"),
    [
        ("x:1\nkind: Pod", "mqtt://broker", "is no image's name"),
        ("x:1", "mqtt://user:secret@broker", "make a Secret of it"),
        ("x:1", "mqtt://us%0Aer@broker", "would have to quote"),
    ],
)
def test_what_cannot_stand_in_a_manifest_is_refused(make_bundle, tmp_path, image, mqtt, promised):
    """No secret, and nothing that would be read as something else."""
    with pytest.raises(BuildError, match=promised):
        export.export_kubernetes(make_bundle(), tmp_path / "out", image=image, mqtt=mqtt)
