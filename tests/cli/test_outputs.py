"""Files that commands write: one that is there is kept unless --force, and what is read is never replaced."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.bundle.part_file import PartFile
from edgebit.cli import cli
from edgebit.errors import BuildError, BundleError, ExportError, OutputError
from edgebit.export.to_hugging_face import export_hugging_face


def run(*arguments: object):
    return CliRunner().invoke(cli, [*map(str, arguments)])


@pytest.fixture
def folder(reference_checkpoint, reference_model, tmp_path, monkeypatch) -> Path:
    """A checkpoint's folder `P`, a model file `M` of it, ids, a text and questions, in the working folder."""
    shutil.copytree(reference_checkpoint("bitnet-packed"), tmp_path / "P")
    shutil.copy(reference_model("bitnet-packed"), tmp_path / "M")
    (tmp_path / "ids.json").write_text("[1, 2, 3]")
    (tmp_path / "a.txt").write_text("A text of a few words.")
    (tmp_path / "q.jsonl").write_text(json.dumps({"query": "Is 2 even?", "choices": ["yes", "no"], "gold": 0}) + "\n")
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PERPLEXITY = ("eval", "perplexity", "M", "--text", "a.txt", "--per-token")
CHOICES = ("eval", "choices", "M", "--data", "q.jsonl", "--per-question")
KL = ("eval", "kl", "M", "--against", "P/other", "--text", "a.txt", "--per-token")
REFERENCE = ("eval", "reference", "M", "--text", "a.txt", "--out")
LOGITS = ("logits", "M", "--ids-file", "ids.json", "--out")
LIKE_P = ("--i2s-reference", "P")
WRITERS = [PERPLEXITY, CHOICES, REFERENCE, LOGITS]


@pytest.mark.parametrize(
    "command",
    [
        (*PERPLEXITY, "M"),
        (*PERPLEXITY, "a.txt"),
        (*CHOICES, "M"),
        (*CHOICES, "q.jsonl"),
        (*REFERENCE, "M"),
        (*REFERENCE, "a.txt"),
        (*LOGITS, "M"),
        (*LOGITS, "ids.json"),
        ("logits", "P", "--ids-file", "ids.json", "--out", "P/config.json"),
        (*KL, "P/other"),
        ("eval", "kl", "M", "--reference", "a.txt", "--per-token", "a.txt"),
        ("convert", "M", "--out", "M"),
        ("convert", "M", "--out", "link"),
        ("convert", "M", "--out", "hard"),
        ("convert", "P", "--template", "t.jinja", "--out", "t.jinja"),
        *(("convert", "P", "--out", f"P/{name}") for name in ("model.safetensors", "tokenizer.json", "config.json")),
        ("build", "M", "--target", "linux-x86_64", "--out", "M"),
        ("build", "P", "--target", "linux-x86_64", "--out", "P/tokenizer.json"),
        ("export", "gguf", "M", "--out", "M"),
        ("export", "gguf", "P", "--out", "P/model.safetensors"),
        ("export", "gguf", "M", "--head-from", "P", "--out", "P/model.safetensors"),
        ("export", "hf", "P", "--out", "P"),
        ("export", "hf", "M", "--head-from", "P", "--out", "P"),
        ("convert", "M", *LIKE_P, "--out", "P/model.safetensors"),
        ("build", "M", *LIKE_P, "--target", "linux-x86_64", "--out", "P/config.json"),
        ("logits", "M", *LIKE_P, "--ids-file", "ids.json", "--out", "P/config.json"),
        ("export", "gguf", "M", *LIKE_P, "--out", "P/config.json"),
        ("export", "hf", "M", *LIKE_P, "--out", "P"),
    ],
    ids=" ".join,
)
def test_what_is_read_is_never_replaced(command, folder):
    """Not even with --force, and by whatever name: nothing is written at all."""
    shutil.copy("M", "P/other")
    Path("link").symlink_to("M")
    Path("hard").hardlink_to("M")
    before = contents(folder)
    done = run(*command, "--force")
    assert isinstance(done.exception, OutputError | BuildError | ExportError), done.output
    assert "is what is read, and would be lost" in str(done.exception)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        (*PERPLEXITY[:2], "N.part", *PERPLEXITY[3:], "N"),
        ("eval", "perplexity", "M", "--text", "N.part", "--per-token", "N"),
        ("eval", "choices", "M", "--data", "N.part", "--per-question", "N"),
        ("eval", "kl", "M", "--reference", "N.part", "--per-token", "N"),
        ("eval", "reference", "N.part", "--text", "a.txt", "--out", "N"),
        ("logits", "N.part", "--ids-file", "ids.json", "--out", "N"),
        ("logits", "M", "--ids-file", "N.part", "--out", "N"),
        ("convert", "N.part", "--out", "N"),
        ("convert", "P", "--template", "N.part", "--out", "N"),
        ("build", "N.part", "--target", "linux-x86_64", "--out", "N"),
        ("export", "gguf", "N.part", "--out", "N"),
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written_over_as_a_part(command, folder):
    """A file N is made at N.part, which is what a download that did not end leaves, too."""
    shutil.copy("M", "N.part")
    before = contents(folder)
    done = run(*command, "--force")
    assert isinstance(done.exception, OutputError | BuildError | ExportError), done.output
    assert ".part is read, and would be lost" in str(done.exception)
    assert contents(folder) == before


@pytest.mark.parametrize("command", [PERPLEXITY, CHOICES, KL], ids=" ".join)
def test_a_folder_is_refused_with_the_option_that_named_it(command, folder):
    shutil.copy("M", "P/other")
    done = run(*command, "P")
    assert f"P is a folder. Give a file name: {command[-1]} P/NAME.jsonl" in str(done.exception)


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_a_file_that_is_there_is_replaced_only_when_told(command, native, folder):
    out = folder / "out"
    out.write_bytes(b"mine")
    done = run(*command, out)
    assert isinstance(done.exception, OutputError)
    assert "is there already. Give another name, or --force to replace it" in str(done.exception)
    assert out.read_bytes() == b"mine"
    assert run(*command, out, "--force").exit_code == 0
    assert out.read_bytes() != b"mine"
    assert not (folder / "out.part").exists()


@pytest.mark.parametrize("command", [PERPLEXITY, CHOICES], ids=" ".join)
def test_a_full_disk_leaves_no_part_of_the_lines(command, native, folder, monkeypatch):
    def full(self: PartFile, data: bytes) -> None:
        with self.faults():
            self.file.write(data[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PartFile, "write", full)
    done = run(*command, "out")
    assert isinstance(done.exception, OutputError)
    assert "out.part: cannot be written: No space left on device" in str(done.exception)
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "P", "--no-probes"),
        ("build", "P", "--target", "linux-x86_64"),
        ("export", "gguf", "M"),
        (*LOGITS[:-1],),
        (*REFERENCE[:-1],),
    ],
    ids=" ".join,
)
def test_the_name_of_a_folder_is_no_files(command, folder):
    """Whether there is one or not: a file `new` is not what was asked for by `new/`."""
    done = run(*command, "--out", "new/")
    assert done.exit_code == 2
    assert "new/ is the name of a folder. Give the file's: new/NAME" in " ".join(done.stderr.split())
    (folder / "there").mkdir()
    done = run(*command, "--out", "there")
    assert "there is a folder. Give a file name: --out there/NAME" in str(done.exception)
    assert not (folder / "new").exists()


def test_a_failed_check_and_a_file_that_cannot_be_written_end_differently(folder):
    """So that scripts can tell them: 3 is a damaged model file."""
    assert (OutputError.exit_code, BundleError.exit_code) == (19, 3)
    assert isinstance(run("convert", "P", "--all-checks", "--out", "M").exception, OutputError)


@pytest.mark.parametrize("name", ["notes.txt", "model-00001-of-00002.safetensors", "a folder"])
def test_a_folder_with_files_of_others_is_not_replaced(name, folder):
    out = export_hugging_face(folder / "M", folder / "out").out
    (out / name).mkdir() if name == "a folder" else (out / name).write_text("mine")
    before = contents(folder)
    done = run("export", "hf", "M", "--out", "out", "--force")
    assert isinstance(done.exception, ExportError)
    assert f"no folder that edgebit alone wrote: {name} is of another" in str(done.exception)
    assert contents(folder) == before


def test_a_checkpoint_of_others_is_not_replaced(folder):
    """Though its files have the names of an export's."""
    for path in (folder / "P").iterdir():
        if path.name not in ("config.json", "model.safetensors", "tokenizer.json"):
            path.unlink()
    before = contents(folder)
    done = run("export", "hf", "M", "--out", "P", "--force")
    assert "no .edgebit-export.json says what it wrote" in str(done.exception)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        ("export", "hf", "links", "--out", "out"),
        ("export", "hf", "M", "--head-from", "links", "--out", "out"),
        ("export", "onnx", "links", "--out", "out"),
        ("export", "onnx", "M", "--stock", "--text", "out/README.md", "--out", "out"),
    ],
    ids=" ".join,
)
def test_a_folder_that_is_read_by_way_of_its_files_is_not_replaced(command, folder):
    """A checkpoint of links, as a cache keeps it; a text to measure by."""
    if "onnx" in command:
        pytest.importorskip("onnx")
    out = export_hugging_face(folder / "P", folder / "out").out
    (folder / "links").mkdir()
    for path in out.iterdir():
        (folder / "links" / path.name).symlink_to(path)
    before = contents(folder)
    done = run(*command, "--force")
    assert isinstance(done.exception, ExportError)
    assert "is what is read, and would be lost" in str(done.exception)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["README.md", "config.json", "generation_config.json"])
def test_an_edited_export_is_not_replaced(name, folder):
    out = export_hugging_face(folder / "M", folder / "out").out
    assert run("export", "hf", "M", "--out", "out", "--force").exit_code == 0
    (out / name).write_text((out / name).read_text() + " ")
    before = contents(folder)
    done = run("export", "hf", "M", "--out", "out", "--force")
    assert isinstance(done.exception, ExportError)
    assert f"{name} was changed since, or is of another. Give another --out, or delete the folder" in str(
        done.exception
    )
    assert contents(folder) == before
