"""What is taken for an exported folder, and what is said of one that is not whole."""

import errno
import json
import os
from pathlib import Path

import pytest

from edgebit.bundle.other_kinds import looks_like_exported
from edgebit.errors import OnnxError
from edgebit.onnx_engine.folder import OnnxFolder, source_of


def test_a_whole_folder_says_what_it_is(hand_made):
    folder = OnnxFolder.open(hand_made())
    assert (folder.source, folder.ops, folder.fallback) == ("tiny-by-hand", "contrib", "exact")
    assert folder.own_operators == 1 and folder.has_fallback and folder.groups_queries
    assert (folder.conf.n_layers, folder.conf.bos_token, folder.conf.stop_tokens) == (2, 0, (1,))
    assert folder.tokenizer_section() and folder.prompt_program() is not None
    assert folder.weight_bytes == (folder.path / "model.onnx.data").stat().st_size


def test_the_file_itself_names_its_folder(hand_made):
    path = hand_made()
    assert looks_like_exported(path) and looks_like_exported(path / "model.onnx")
    assert OnnxFolder.open(path / "model.onnx").path == path


def test_other_things_are_no_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not looks_like_exported(tmp_path)
    with pytest.raises(OnnxError, match=r"holds no model\.onnx.*edgebit export onnx MODEL"):
        OnnxFolder.open(tmp_path)
    assert "does not name" in source_of(tmp_path)


def test_a_graph_under_another_name_is_told_from_none(hand_made):
    path = hand_made()
    (path / "model.onnx").rename(path / "lm.onnx")
    with pytest.raises(OnnxError, match=r"lm\.onnx is read by the name model\.onnx.*Give it that name again"):
        OnnxFolder.open(path / "lm.onnx")


def renamed(old: bytes, new: bytes):
    return lambda content: content.replace(old, new)


onnx = pytest.importorskip("onnx", reason="onnx is not installed")

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model.onnx", lambda content: None, "holds no model.onnx"),
        ("model.onnx", lambda content: b"", "has 0 bytes"),
        ("model.onnx", lambda content: content[:1000], "damaged or no ONNX file.*cut short"),
        ("model.onnx", lambda content: b"no model at all", "damaged or no ONNX file"),
        ("model.onnx", lambda content: LFS, "git lfs pull"),
        ("model.onnx", renamed(b"edgebit.version", b"another.version"), "was not written by edgebit"),
        ("model.onnx", renamed(b'"n_layers": 2', b'"n_layers": 0'), "n_layers is 0; 1 to 1024"),
        ("model.onnx", renamed(b'"n_layers": 2', b'"n_layers": 3'), "has no input past_key_values.2.key"),
        ("model.onnx", renamed(b'"n_layers": 2', b'"n_layers": 1'), "has a surplus input past_key_values.1.key"),
        ("model.onnx", renamed(b'"stop_tokens": [1]', b'"stop_tokens": [x]'), "edgebit.conf is no JSON"),
        ("model.onnx", renamed(b'"stop_tokens": [1]', b'"stop_tokens":  1 '), "the stop tokens 1, the vocabulary"),
        ("model.onnx", renamed(b'"bos_token": 0', b'"bos_token":-7'), "begin-of-text token -7"),
        ("model.onnx", renamed(b"model.onnx.data", b"../../etc/passw"), "a file outside its folder"),
        ("model.onnx", renamed(b"model.onnx.data", b"model.onnx.\0ata"), "is missing"),
        ("model.onnx", renamed(b"present.0.key", b"present.1.key"), "has no output present.0.key"),
        ("model.onnx", renamed(b"present.1.value", b"present.1.valu\xe9"), "damaged or no ONNX file"),
        ("model.onnx.data", lambda content: None, r"model\.onnx\.data is missing"),
        ("model.onnx.data", lambda content: content[:-4], "ends at byte .* a copy cut short"),
        ("model.onnx.data", lambda content: content + b"x", r"has \d+ bytes.* end at byte \d+: it is of another model"),
        ("model.onnx.data", lambda content: LFS, "git lfs pull"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused_with_what_and_where(damaged, name, change, words):
    path = damaged(name, change)
    with pytest.raises(OnnxError, match=words) as refused:
        OnnxFolder.open(path)
    assert str(path) in str(refused.value)


def test_a_name_too_long_for_any_file_is_missing(hand_made):
    path = hand_made()
    model = onnx.load(str(path / "model.onnx"), load_external_data=False)
    for place in (entry for each in model.graph.initializer for entry in each.external_data if entry.key == "location"):
        place.value = "x" * 5000
    (path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(OnnxError, match="xxx is missing"):
        OnnxFolder.open(path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (name, *each)
        for name in ("edgebit.tokn", "edgebit.prmt")
        for each in (
            (lambda content: None, "cannot be read: No such file"),
            (lambda content: content[:-1], "is damaged or altered: its SHA-256"),
            (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "is damaged or altered: its SHA-256"),
        )
    ],
)
def test_texts_that_were_exported_are_those_that_are_read(damaged, name, change, words):
    """A missing chat template would give answers of another kind without a word."""
    folder = OnnxFolder.open(damaged(name, change))
    with pytest.raises(OnnxError, match=words) as refused:
        folder.tokenizer_section()
        folder.prompt_program()
    assert str(refused.value).startswith(str(folder.path / name)) and "export the model again" in str(refused.value)


@pytest.mark.parametrize("name", ["edgebit.tokn", "edgebit.prmt"])
def test_a_text_that_cannot_be_read_is_named(name, hand_made):
    folder = OnnxFolder.open(hand_made())
    (folder.path / name).unlink()
    (folder.path / name).mkdir()
    with pytest.raises(OnnxError, match=rf"{name} cannot be read: "):
        folder.read_small(name)


@pytest.mark.parametrize("name", ["edgebit.tokn", "model.onnx.data"])
def test_a_folder_in_the_place_of_a_file_is_not_called_missing(damaged, name):
    path = damaged(name, lambda content: None)
    (path / name).mkdir()
    with pytest.raises(OnnxError, match=rf"{name} is a folder, and model\.onnx needs a file of that name"):
        OnnxFolder.open(path).verify()


def test_what_may_not_be_read_wants_no_other_copy(hand_made, monkeypatch):
    folder = OnnxFolder.open(hand_made())

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OnnxError, match=r"edgebit\.tokn cannot be read: Permission denied\. .*chmod a\+rX") as refused:
        folder.tokenizer_section()
    assert "opy it again" not in str(refused.value)


def test_without_sums_what_a_text_file_says_of_itself_is_left(hand_made):
    folder = OnnxFolder.open(hand_made(properties={"edgebit.files_sha256": None}))
    program = folder.path / "edgebit.prmt"
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(OnnxError, match=r"edgebit\.prmt: section PRMT"):
        folder.prompt_program()
    program.write_bytes(b"")
    with pytest.raises(OnnxError, match=r"edgebit\.prmt: section PRMT is damaged: it has 0 bytes"):
        folder.prompt_program()
    (folder.path / "edgebit.tokn").unlink()
    with pytest.raises(OnnxError, match=r"cannot take text: there is no edgebit\.tokn"):
        folder.tokenizer_section()


def test_a_model_without_a_template_has_no_program(hand_made):
    assert OnnxFolder.open(hand_made(program=None)).prompt_program() is None


def test_verify_finds_a_single_altered_byte(hand_made, damaged):
    """Sizes show nothing of it, sums do; whole folders pass, and each byte is told of."""
    whole, told = OnnxFolder.open(hand_made()), []
    assert whole.verify(told.append) == ["model.onnx.data", "edgebit.tokn", "edgebit.prmt"]
    assert sum(told) == sum((whole.path / name).stat().st_size for name in whole.sums())

    altered = OnnxFolder.open(damaged("model.onnx.data", lambda c: c[:999] + bytes([c[999] ^ 1]) + c[1000:]))
    with pytest.raises(OnnxError, match=r"model\.onnx\.data is damaged or altered: its SHA-256"):
        altered.verify()


def test_sums_that_are_none_are_refused(hand_made):
    folder = OnnxFolder.open(hand_made(properties={"edgebit.source_sha256": json.dumps([1])}))
    with pytest.raises(OnnxError, match="source_sha256 is no JSON of sums"):
        folder.source_sums()
