"""Bundles: written the same every time, read by any tar, mapped in place; damaged and hostile ones are refused."""

import hashlib
import io
import json
import mmap
import random
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from signing_keys import make_key, signing

from edgebit.bundle import archive
from edgebit.bundle.archive import hash_file, locate_model, looks_like_bundle, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.errors import BundleError

CONTENT = {
    "model.ebm": bytes(range(256)) * 9,
    "lib/libedgebit.so": b"\x7fELF" + b"l" * 700,
    "bin/edgebit-run": b"\x7fELF" + b"r" * 10,
    "empty": b"",
}


def write_sources(folder: Path) -> dict[str, Path]:
    sources = {}
    for name, data in CONTENT.items():
        sources[name] = folder / "sources" / name
        sources[name].parent.mkdir(parents=True, exist_ok=True)
        sources[name].write_bytes(data)
    return sources


def manifest_of(sources: dict[str, Path]) -> Manifest:
    return Manifest(
        name="chat",
        edgebit="0.1.0",
        abi=1,
        target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
        model=ModelInfo(name="m"),
        build=BuildInfo(),
        files={name: hash_file(path) for name, path in sources.items()},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sound bundle file."""
    sources = write_sources(tmp_path)
    write_archive(tmp_path / "chat.bundle", manifest_of(sources), sources)
    return tmp_path / "chat.bundle"


def test_every_member_is_read_back(bundle, tmp_path):
    """By read, by extract, and by offset in the file itself."""
    opened = open_bundle(bundle)
    opened.verify()

    for name, data in CONTENT.items():
        member = opened.member(name)
        assert opened.read(name) == data
        assert bundle.read_bytes()[member.offset : member.offset + member.size] == data
        opened.extract(name, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
        (tmp_path / "out").unlink()
    assert set(opened.members) == set(CONTENT)


def test_members_are_aligned_for_mapping(bundle):
    """The model maps where it lies: every member begins at a multiple of 512, so of the 64 that its layout needs."""
    opened = open_bundle(bundle)

    assert all(member.offset % 512 == 0 for member in opened.members.values())
    place = opened.member("model.ebm")
    with bundle.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[place.offset : place.offset + place.size] == CONTENT["model.ebm"]


def test_bytes_depend_on_content_alone(bundle, tmp_path):
    """Another folder, another order, another time: the same file and id."""
    again = tmp_path / "elsewhere"
    again.mkdir()
    sources = dict(reversed(write_sources(again).items()))
    for path in sources.values():
        path.chmod(0o600)
    identity = write_archive(again / "b", manifest_of(sources), sources)

    assert (again / "b").read_bytes() == bundle.read_bytes()
    assert identity == open_bundle(bundle).id


def test_any_tar_reads_it(bundle, tmp_path, require_tool):
    """GNU tar lists it in order, unpacks it, and the folder is a bundle too, with the same id."""
    listed = subprocess.run([require_tool("tar"), "tf", bundle], capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run([require_tool("tar"), "xf", bundle, "-C", folder], check=True)

    assert listed.split() == ["manifest.json", *sorted(CONTENT)]
    assert open_bundle(folder).id == open_bundle(bundle).id
    open_bundle(folder).verify()
    assert (folder / "bin/edgebit-run").stat().st_mode & 0o111


def test_progress_counts_every_byte(bundle):
    """The bar reaches its end."""
    done: list[int] = []
    open_bundle(bundle).verify(done.append)

    assert sum(done) == sum(map(len, CONTENT.values()))


def test_failed_write_leaves_nothing(tmp_path):
    """Neither the bundle nor its .part is there after an error."""
    sources = write_sources(tmp_path)
    manifest = manifest_of(sources)
    sources["model.ebm"].write_bytes(b"changed since it was summed")

    with pytest.raises(OSError, match="unexpected end of data"):
        write_archive(tmp_path / "chat.bundle", manifest, sources)

    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_failed_write_keeps_the_bundle_before(bundle, tmp_path):
    """An old bundle is replaced in one step or not at all."""
    before = bundle.read_bytes()
    sources = write_sources(tmp_path)
    manifest = manifest_of(sources)
    sources["model.ebm"].write_bytes(CONTENT["model.ebm"] + b"more")

    with pytest.raises(ValueError, match="more than"):
        write_archive(bundle, manifest, sources)

    assert bundle.read_bytes() == before


def test_every_flipped_byte_is_noticed(bundle):
    """A byte that differs anywhere but in padding and unread header fields is an error; none goes by unread."""
    data = bytearray(bundle.read_bytes())
    opened = open_bundle(bundle)
    places = [member.offset + member.size // 2 for member in opened.members.values() if member.size]
    places += [archive.BLOCK + 20]  # the manifest
    for place in places:
        data[place] ^= 1
        bundle.write_bytes(data)
        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle).verify()
        data[place] ^= 1


def test_cut_short_anywhere_is_refused(bundle):
    """A copy that ended early is never opened."""
    data = bundle.read_bytes()
    end = max(member.offset + member.size for member in open_bundle(bundle).members.values())
    for size in sorted({0, 1, 511, 512, 600, *range(1024, end, 331)}):
        bundle.write_bytes(data[:size])
        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle)


def test_random_damage_never_ends_in_another_error(bundle):
    """Headers and manifest changed at random, checksums mended or not: read, or refused with a BundleError."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    data = bundle.read_bytes()
    headers = [0, *(member.offset - archive.BLOCK for member in open_bundle(bundle).members.values())]
    manifest_end = archive.BLOCK + len(open_bundle(bundle).manifest_bytes)
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            header = chance.choice(headers)
            at = chance.choice([header + chance.randrange(archive.BLOCK), chance.randrange(512, manifest_end)])
            broken[at] = chance.choice([0, 0x2E, 0x2F, 0x30, 0x37, 0xFF, chance.randrange(256)])
            if chance.random() < 0.7:
                broken[header : header + 512] = checksummed(broken[header : header + 512])
        bundle.write_bytes(broken)
        try:
            open_bundle(bundle).verify()
        except BundleError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def tar_of(entries: list[tuple[tarfile.TarInfo, bytes]], path: Path, form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w:", format=form) as tar:
        for info, data in entries:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return path


def entries_of(listed: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """A manifest for `listed`, and its members."""
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in listed.items()}
    content = {
        "schema": 1, "name": "x", "edgebit": "0", "abi": 1, "target": {"name": "t", "triple": "aarch64-linux-gnu"},
        "model": {"name": "m"}, "build": {}, "files": files,
    }  # fmt: skip
    members = {"manifest.json": json.dumps(content).encode(), **listed}
    return [(tarfile.TarInfo(name), data) for name, data in members.items()]


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def signature(data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo("manifest.sig"), data or signing(make_key(1)).sign(b"{}")


GOOD = {"model.ebm": b"m", "lib/libedgebit.so": b"l"}
HOSTILE = {
    "absolute path": ([(tarfile.TarInfo("/etc/passwd"), b"x")], "'/etc/passwd' is not a name"),
    "parent path": ([(tarfile.TarInfo("../x"), b"x")], "'../x' is not a name"),
    "hidden parent": ([(tarfile.TarInfo("a/../../x"), b"x")], "is not a name"),
    "symbolic link": ([special("link", tarfile.SYMTYPE, "/etc/passwd")], "'link' is a symbolic link"),
    "hard link": ([special("link", tarfile.LNKTYPE, "/etc/passwd")], "'link' is a hard link"),
    "character device": ([special("dev", tarfile.CHRTYPE)], "'dev' is a character device"),
    "block device": ([special("dev", tarfile.BLKTYPE)], "'dev' is a block device"),
    "pipe": ([special("pipe", tarfile.FIFOTYPE)], "'pipe' is a pipe"),
    "folder": ([special("lib", tarfile.DIRTYPE)], "is a folder"),
    "unknown kind": ([special("what", b"Z")], "is of kind"),
    "twice": ([(tarfile.TarInfo("model.ebm"), b"m")], "model.ebm stands twice"),
    "signature twice": ([signature(b"x"), signature(b"x")], "manifest.sig stands twice"),
    "manifest twice": ([(tarfile.TarInfo("manifest.json"), b"{}")], "manifest.json stands twice"),
    "not in the manifest": ([(tarfile.TarInfo("extra"), b"x")], "extra is not in the manifest"),
    "signature last": ([signature()], "manifest.sig stands second in a bundle, here behind model.ebm"),
    "many": ([(tarfile.TarInfo(f"f{i}"), b"") for i in range(300)], "more than 256 files"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tar_is_refused(name, tmp_path):
    """Nothing but plain files with plain names, each once, all in the manifest."""
    extra, promised = HOSTILE[name]
    path = tar_of([*entries_of(GOOD), *extra], tmp_path / "bad.bundle")

    with pytest.raises(BundleError) as refused:
        open_bundle(path)

    assert promised in str(refused.value)
    assert str(path) in str(refused.value)


def write_signed(folder: Path, *keys) -> Path:
    """A sound signed bundle file."""
    sources, plan = write_sources(folder), signing(*keys)
    manifest = replace(manifest_of(sources), release=plan.release)
    write_archive(folder / "signed.bundle", manifest, sources, sign=plan.sign)
    return folder / "signed.bundle"


def test_signature_stands_behind_the_manifest(tmp_path, require_tool):
    """In the file and in the folder that tar makes of it; neither the id nor another member changes with it."""
    one, two = make_key(1), make_key(2)
    opened = open_bundle(write_signed(tmp_path, one, two))
    listed = subprocess.run([require_tool("tar"), "tf", opened.path], capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run([require_tool("tar"), "xf", opened.path, "-C", folder], check=True)

    assert listed.split()[:3] == ["manifest.json", "manifest.sig", "bin/edgebit-run"]
    assert [signed.id for signed in opened.signatures] == [one.public.id, two.public.id]
    assert set(opened.members) == set(CONTENT)
    assert open_bundle(folder).offer == opened.offer
    opened.verify()
    (folder / "manifest.sig").unlink()
    assert open_bundle(folder).id == opened.id
    assert open_bundle(folder).signatures == ()


def test_signed_bytes_depend_on_content_alone(tmp_path):
    """Signed again elsewhere, with the same key at the same time: the same file."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    assert (
        write_signed(tmp_path / "a", make_key(1)).read_bytes() == write_signed(tmp_path / "b", make_key(1)).read_bytes()
    )


BAD_SIGNATURES = {
    "empty": (b"", "has 1 lines"),
    "huge": (b"x" * 5000, "manifest.sig has 5000 bytes, at most 4096"),
    "cut short": (signature()[1][:-9], "its fourth line is no signature"),
    "rubbish behind": (signature()[1] + b"more\n", "has 5 lines"),
    "no UTF-8": (b"\xff" * 100, "is not UTF-8"),
}


@pytest.mark.parametrize("form", ["file", "folder"])
@pytest.mark.parametrize("name", BAD_SIGNATURES)
def test_malformed_signature_is_refused(name, form, tmp_path):
    """When the bundle is opened, by whoever does."""
    data, promised = BAD_SIGNATURES[name]
    entries = entries_of(GOOD)
    if form == "file":
        bad = tarfile.TarInfo("manifest.sig")
        path = tar_of([entries[0], (bad, data), *entries[1:]], tmp_path / "bad.bundle")
    else:
        path = tmp_path / "bad"
        for info, content in [*entries, (tarfile.TarInfo("manifest.sig"), data)]:
            (path / info.name).parent.mkdir(parents=True, exist_ok=True)
            (path / info.name).write_bytes(content)

    with pytest.raises(BundleError) as refused:
        open_bundle(path)

    assert promised.replace("has 5000", "has 5000" if form == "file" else "has 4097") in str(refused.value)
    assert str(path) in str(refused.value)


def test_signature_that_is_a_link_is_refused(tmp_path):
    """In a folder, as any other file."""
    opened = open_bundle(write_signed(tmp_path, make_key(1)))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(opened.manifest_bytes)
    (folder / "manifest.sig").symlink_to("nowhere")

    with pytest.raises(BundleError, match=r"manifest\.sig is not a plain file"):
        open_bundle(folder)


def test_signature_cannot_be_listed(tmp_path):
    """It would have to sum itself, and a slot's own notes are no part of a bundle."""
    for name in ("manifest.sig", "manifest.keys", "manifest.sig/x"):
        with pytest.raises(BundleError, match="is not a name that may stand in a bundle"):
            open_bundle(tar_of(entries_of({name: b"x", **GOOD})[:1], tmp_path / "bad.bundle"))


def test_missing_member_is_refused(tmp_path):
    """What the manifest lists must be there."""
    path = tar_of(entries_of(GOOD)[:-1], tmp_path / "bad.bundle")

    with pytest.raises(BundleError, match=r"lib/libedgebit\.so is missing"):
        open_bundle(path)


def test_wrong_size_is_refused(tmp_path):
    """A member with another size than the manifest says is found before its sum is."""
    entries = entries_of(GOOD)
    entries[1] = (entries[1][0], b"longer")

    with pytest.raises(BundleError, match=r"model\.ebm has 6 bytes, the manifest says 1"):
        open_bundle(tar_of(entries, tmp_path / "bad.bundle"))


def test_wrong_sum_is_refused(tmp_path):
    """A member of the right size and another content: read, extract and verify all refuse it and leave nothing."""
    entries = entries_of(GOOD)
    entries[1] = (entries[1][0], b"x")
    opened = open_bundle(tar_of(entries, tmp_path / "bad.bundle"))

    for act in (lambda: opened.read("model.ebm"), lambda: opened.extract("model.ebm", tmp_path / "out"), opened.verify):
        with pytest.raises(BundleError, match=r"model\.ebm is damaged"):
            act()
    assert not (tmp_path / "out").exists()


def test_extract_never_overwrites(bundle, tmp_path):
    """A file that is there stays as it is."""
    (tmp_path / "out").write_text("mine")

    with pytest.raises(FileExistsError):
        open_bundle(bundle).extract("model.ebm", tmp_path / "out")

    assert (tmp_path / "out").read_text() == "mine"


def test_manifest_must_come_first(tmp_path):
    """A reader needs it before all else."""
    with pytest.raises(BundleError, match=r"begins with manifest\.json, this begins with lib/libedgebit\.so"):
        open_bundle(tar_of(entries_of(GOOD)[::-1], tmp_path / "bad.bundle"))


def checksummed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_lying_size_is_refused(tmp_path):
    """A size beyond the file's end, with a right checksum."""
    path = tar_of(entries_of(GOOD), tmp_path / "bad.bundle")
    data = bytearray(path.read_bytes())
    at = data.index(b"lib/libedgebit.so\0")
    header = data[at : at + 512]
    header[124:136] = b"77777777777\0"
    path.write_bytes(data[:at] + checksummed(header) + data[at + 512 :])

    with pytest.raises(BundleError, match="cut short"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("size", "promised"),
    [
        (b"-1234567890\0", "number that is none"),
        (b"\0" * 12, "number that is none"),
        (b"\x80" + b"\0" * 10 + b"\1", "none"),
    ],
    ids=["negative", "empty", "base 256"],
)
def test_malformed_size_is_refused(tmp_path, size, promised):
    """A size that is no octal number is damage, not zero."""
    path = tar_of(entries_of(GOOD), tmp_path / "bad.bundle")
    data = bytearray(path.read_bytes())
    at = data.index(b"model.ebm\0")
    header = data[at : at + 512]
    header[124:136] = size
    path.write_bytes(data[:at] + checksummed(header) + data[at + 512 :])

    with pytest.raises(BundleError, match=promised):
        open_bundle(path)


def test_flipped_header_is_refused(tmp_path):
    """A name that was changed does not fit its checksum."""
    path = tar_of(entries_of(GOOD), tmp_path / "bad.bundle")
    path.write_bytes(path.read_bytes().replace(b"lib/libedgebit.so\0", b"lib/libedgebit.sx\0"))

    with pytest.raises(BundleError, match="wrong checksum"):
        open_bundle(path)


def pax_header(record: bytes) -> tuple[tarfile.TarInfo, bytes]:
    length = len(record) + 3
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, length
    return info, b"%d %s" % (length, record)


@pytest.mark.parametrize(
    ("record", "promised"),
    [
        (b"path=../../x\n", "sets b'path'"),
        (b"linkpath=/etc\n", "sets b'linkpath'"),
        (b"size=-1\n", "a size that is none"),
        (b"size=99999999999999\n", "cut short"),
        (b"GNU.sparse.size=9\n", "sizes only"),
    ],
)
def test_pax_header_sets_sizes_only(tmp_path, record, promised):
    """A long-name trick cannot rename a member, and a size is checked like any other."""
    path = tmp_path / "bad.bundle"
    entries = entries_of(GOOD)
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in [entries[0], pax_header(record), *entries[1:]]:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    with pytest.raises(BundleError) as refused:
        open_bundle(path)

    assert promised in str(refused.value)


def test_member_beyond_8_gib(tmp_path):
    """Sizes that need a pax header are read: 9 GiB, a hole on the disk."""
    size = 9 << 30
    path = tmp_path / "big.bundle"
    content = json.loads(entries_of(GOOD)[0][1])
    content["files"] = {"model.ebm": {"size": size, "sha256": "0" * 64}}
    data = json.dumps(content).encode()
    with path.open("wb") as file:
        for name, length in (("manifest.json", len(data)), ("model.ebm", size)):
            info = tarfile.TarInfo(name)
            info.size = length
            file.write(info.tobuf(tarfile.PAX_FORMAT))
            if name == "manifest.json":
                file.write(data.ljust(-(-length // 512) * 512, b"\0"))
        file.truncate(file.tell() + size + 1024)

    member = open_bundle(path).member("model.ebm")

    assert member.size == size
    assert member.offset % 512 == 0


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 1024, b"x" * 2000, b"\x1f\x8b" + b"\0" * 600], ids=["empty", "zeros", "text", "gzip"]
)
def test_what_is_no_bundle_is_refused(tmp_path, data):
    """Other files say so in the first words."""
    path = tmp_path / "not.bundle"
    path.write_bytes(data)

    with pytest.raises(BundleError, match=str(path)):
        open_bundle(path)
    assert not looks_like_bundle(path)


def unpacked(bundle: Path, folder: Path) -> Path:
    shutil.unpack_archive(bundle, folder, "tar")
    return folder


def test_folder_with_a_link_is_refused(bundle, tmp_path):
    """A folder bundle holds plain files in plain folders: links could change under the reader or lead elsewhere."""
    folder = unpacked(bundle, tmp_path / "folder")
    shutil.copy(folder / "model.ebm", tmp_path / "model")
    (folder / "model.ebm").unlink()
    (folder / "model.ebm").symlink_to(tmp_path / "model")

    with pytest.raises(BundleError, match=r"model\.ebm is not a plain file"):
        open_bundle(folder)


def test_folder_behind_a_link_is_refused(bundle, tmp_path):
    """The same for a folder inside it."""
    folder = unpacked(bundle, tmp_path / "folder")
    (folder / "lib").rename(tmp_path / "lib")
    (folder / "lib").symlink_to(tmp_path / "lib")

    with pytest.raises(BundleError, match="lib is a symbolic link"):
        open_bundle(folder)


def test_folder_lacking_a_file_is_refused(bundle, tmp_path):
    """Named in the message."""
    folder = unpacked(bundle, tmp_path / "folder")
    (folder / "lib/libedgebit.so").unlink()

    with pytest.raises(BundleError, match=r"lib/libedgebit\.so is missing"):
        open_bundle(folder)


def test_model_is_located_in_all_three_forms(bundle, tmp_path):
    """A bundle file, a bundle folder and a model file of its own."""
    folder = unpacked(bundle, tmp_path / "folder")

    for path in (bundle, folder, folder / "model.ebm"):
        place = locate_model(path)
        assert place.path.read_bytes()[place.offset : place.offset + place.size] == CONTENT["model.ebm"]


def test_a_checkpoint_is_not_a_model(tmp_path):
    """The message says what to do with it."""
    with pytest.raises(BundleError, match="edgebit build"):
        locate_model(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(BundleError, match=r"model\.gguf is a GGUF file, .* edgebit convert"):
        locate_model(tmp_path / "model.gguf")
