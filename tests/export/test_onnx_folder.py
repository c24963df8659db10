"""What `edgebit export onnx` leaves on the disk: its files, what they say of themselves, and nothing after a fault."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from export.onnx_run import OnnxRun, open_session

from edgebit.bundle.model_reader import ModelFile
from edgebit.cli import cli
from edgebit.convert import convert
from edgebit.errors import ExportError, OnnxError
from edgebit.export.onnx_model.external_data import ExternalData
from edgebit.export.to_hugging_face import export_hugging_face
from edgebit.export.to_onnx import OnnxForm, export_onnx

onnx = pytest.importorskip("onnx")


def said(folder: Path) -> dict[str, str]:
    """The properties of model.onnx."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def sums_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_folder_of_a_model_file(reference_model, tmp_path):
    """Tokenizer and prompt program are the model file's own sections; every sum is that of the file."""
    library = tmp_path / "library"
    library.write_bytes(b"\x7fELF of a test")
    path, out = reference_model("bitnet-packed"), tmp_path / "out"
    report = export_onnx(path, out, library=library)
    properties, sums = said(out), sums_of(out)
    with ModelFile(path) as file:
        assert (out / "edgebit.tokn").read_bytes() == file.content("TOKN")
        assert (out / "edgebit.prmt").read_bytes() == file.content("PRMT")
        made_from = {entry["name"]: entry["sha256"] for entry in file.meta["source"]["files"]}
    assert json.loads(properties["edgebit.source_sha256"]) == made_from | {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    }
    rest = {"model.onnx", "README.md", ".edgebit-export.json"}
    assert json.loads(properties["edgebit.files_sha256"]) == {n: s for n, s in sums.items() if n not in rest}
    assert properties["edgebit.library_sha256"] == sums["libedgebit_ort.so"]
    assert (properties["edgebit.ops"], properties["edgebit.fallback"]) == ("contrib", "compact")
    conf = json.loads(properties["edgebit.conf"])
    assert (conf["n_layers"], conf["n_kv_heads"], conf["head_dim"]) == (3, 2, 64)
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(sums)
    assert "library_name: onnx" in (out / "README.md").read_text()
    assert report.size == sum(path.stat().st_size for path in out.iterdir())


def test_the_graph_itself_is_small_and_weights_are_aligned(reference_checkpoint, tmp_path):
    """All weights lie beside it, each from a cache line on, large ones from a page on, none over another."""
    export_onnx(reference_checkpoint("bitnet-bf16"), tmp_path / "out")
    model = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False)
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 40_000
    end = 0
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == "model.onnx.data"
        offset, length = int(place["offset"]), int(place["length"])
        assert offset % (4096 if length >= 1 << 20 else 64) == 0
        assert offset >= end
        end = offset + length
    assert end == (tmp_path / "out" / "model.onnx.data").stat().st_size


@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-packed-odd-untied", "bonsai-f16"])
@pytest.mark.parametrize("int8_embedding", [False, True])
@pytest.mark.parametrize(
    "form",
    [{"fallback": "compact"}, {"fallback": "exact"}, {"fallback": "none"}, {"stock": True}],
    ids=lambda form: "-".join(map(str, form.values())),
)
@pytest.mark.parametrize("ops", ["contrib", "standard"])
def test_every_tensor_is_read_by_a_node(ops, form, int8_embedding, name, reference_checkpoint, tmp_path):
    """ONNX Runtime warns at each load of one that is not."""
    export_onnx(
        reference_checkpoint(name), tmp_path / "out", form=OnnxForm(ops=ops, int8_embedding=int8_embedding, **form)
    )
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_a_large_tensor_that_comes_in_small_pieces_begins_a_page(tmp_path):
    with ExternalData(tmp_path / "data") as data:
        data.write([np.zeros(3, np.uint8)], size=3)
        span = data.write((np.full(1 << 18, i, np.uint8) for i in range(5)), size=5 << 18)
    assert span.offset == 4096
    content = (tmp_path / "data").read_bytes()
    assert content[4096 + (4 << 18) :] == bytes([4]) * (1 << 18)
    assert hashlib.sha256(content).hexdigest() == data.sha256


def test_the_same_model_gives_the_same_bytes(reference_checkpoint, tmp_path):
    for name in ("one", "two"):
        export_onnx(reference_checkpoint("qwen3-rmsnorm-packed"), tmp_path / name)
    assert sums_of(tmp_path / "one") == sums_of(tmp_path / "two")


def test_an_export_for_transformers_gives_place(reference_checkpoint, tmp_path):
    path, out = reference_checkpoint("bonsai-f16"), tmp_path / "out"
    export_hugging_face(path, out)
    export_onnx(path, out, force=True)
    assert "model.safetensors" not in sums_of(out)


def test_a_folder_is_replaced_by_force_alone(reference_checkpoint, tmp_path):
    """And only one that an export wrote, to which nobody has put anything."""
    path, out = reference_checkpoint("bonsai-f16"), tmp_path / "out"
    export_onnx(path, out)
    with pytest.raises(ExportError, match="--force to replace it"):
        export_onnx(path, out)
    export_onnx(path, out, form=OnnxForm(fallback="exact"), force=True)
    assert said(out)["edgebit.fallback"] == "exact"
    (out / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(ExportError, match=r"notes\.txt is of another"):
            export_onnx(path, out, force=force)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("at", ["embedding", "layer 1", "head", "sums"])
def test_an_interrupt_leaves_nothing(at, reference_checkpoint, tmp_path):
    def stop(what: str, done: int, total: int) -> None:
        if what == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_onnx(reference_checkpoint("bitnet-packed"), tmp_path / "out", progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [0, 50_000, 500_000, 1_600_000])
def test_a_full_disk_is_an_error_that_leaves_nothing(room, small_disk, reference_checkpoint):
    (small_disk / "filler").write_bytes(bytes(24_900_000 - room))
    with pytest.raises(ExportError, match="cannot be written: No space left on device"):
        export_onnx(reference_checkpoint("bitnet-packed"), small_disk / "out")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_context_whose_tables_are_too_large_is_refused(reference_checkpoint, tmp_path):
    """With the longest one that is possible."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in reference_checkpoint("falcon3-packed").iterdir():
        content = path.read_bytes()
        if path.name == "config.json":
            content = json.dumps(json.loads(content) | {"max_position_embeddings": 16_000_000}).encode()
        (checkpoint / path.name).write_bytes(content)
    with pytest.raises(ExportError, match="up to --ctx 1048576"):
        export_onnx(checkpoint, tmp_path / "out")
    export_onnx(checkpoint, tmp_path / "out", form=OnnxForm(context=100))
    assert json.loads(said(tmp_path / "out")["edgebit.conf"])["context_max"] == 100


def test_a_context_longer_than_the_model_s_is_refused_not_cut(reference_model, tmp_path):
    with pytest.raises(ExportError, match=r"100000 tokens was asked for, the model's is [0-9]+\. Give it"):
        export_onnx(reference_model("bitnet-packed"), tmp_path / "out", form=OnnxForm(context=100_000))
    assert not (tmp_path / "out").exists()


def test_without_the_package_onnx_it_is_said_how_to_get_it(reference_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OnnxError, match=r"pip install 'edgebit\[onnx\]'"):
        export_onnx(reference_checkpoint("bitnet-packed"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_it_wrote(reference_checkpoint, tmp_path):
    """In words, with what computes where there is no library; and as JSON."""
    base = ["export", "onnx", str(reference_checkpoint("bitnet-packed")), "--no-library", "--out"]
    words = CliRunner().invoke(cli, [*base, str(tmp_path / "one")])
    assert words.exit_code == 0, words.output
    assert "without libedgebit_ort.so; without it MatMulNBits computes" in words.output
    found = CliRunner().invoke(cli, [*base, str(tmp_path / "two"), "--fallback", "exact", "--json"])
    report = json.loads(found.stdout)
    assert (report["out"], report["fallback"], report["library"]) == (str(tmp_path / "two"), "exact", None)
    again = CliRunner().invoke(cli, [*base, str(tmp_path / "two")])
    assert isinstance(again.exception, ExportError)


def test_a_rounded_embedding_is_told(native, reference_checkpoint, tmp_path):
    """In the report and in README.md; a model file that has nothing but int8 rows loses nothing more."""
    lossy = "embedding is rounded to int8 rows, which is lossy"
    path, form = reference_checkpoint("bitnet-packed"), OnnxForm(int8_embedding=True)
    report = export_onnx(path, tmp_path / "one", form=form)
    assert any(lossy in note for note in report.notes) and lossy in (tmp_path / "one" / "README.md").read_text()
    convert(path, tmp_path / "int8.ebm", embedding="int8", probes=False)
    for source, out in ((path, "two"), (tmp_path / "int8.ebm", "three")):
        form = OnnxForm(int8_embedding=out == "three")
        report = export_onnx(source, tmp_path / out, form=form)
        assert not any(lossy in note for note in report.notes)
        assert lossy not in (tmp_path / out / "README.md").read_text()


def test_weights_lie_beyond_two_gib(reference_checkpoint, tmp_path, monkeypatch):
    """As in a large model: the file begins with 3 GiB that no tensor uses, and the graph still finds its weights."""

    class FarData(ExternalData):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.size = 3 << 30
            self._file.truncate(self.size)
            self._file.seek(self.size)

    wanted, found = tmp_path / "near", tmp_path / "far"
    form = OnnxForm(fallback="exact")
    export_onnx(reference_checkpoint("bitnet-packed"), wanted, form=form)
    monkeypatch.setattr("edgebit.export.to_onnx.ExternalData", FarData)
    export_onnx(reference_checkpoint("bitnet-packed"), found, form=form)
    assert (found / "model.onnx.data").stat().st_size > 3 << 30
    logits = [OnnxRun(open_session(folder)).step([1, 2, 3]) for folder in (wanted, found)]
    assert np.array_equal(*logits)


def test_the_library_is_that_of_the_target(reference_checkpoint, tmp_path, monkeypatch):
    """It is built when all else that could be wrong with the command has been looked at."""
    asked = []

    def build(target, builder, *, report):
        asked.append((target.name, builder))
        library = tmp_path / "cross-built.so"
        library.write_bytes(b"\x7fELF for another machine")
        return library

    monkeypatch.setattr("edgebit.cli.export.build_ort_library", build)
    base = ["export", "onnx", str(reference_checkpoint("bonsai-f16")), "--target", "rpi", "--out"]
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    assert isinstance(CliRunner().invoke(cli, [*base, str(full)]).exception, ExportError)
    assert not asked
    done = CliRunner().invoke(cli, [*base, str(tmp_path / "out"), "--builder", "zig"])
    assert done.exit_code == 0, done.output
    assert asked == [("rpi", "zig")]
    assert (tmp_path / "out" / "libedgebit_ort.so").read_bytes() == b"\x7fELF for another machine"
