"""Rehearsal: old rows among new ones, in their share, and what it keeps of the old."""

import json

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.errors import TrainError
from edgebit.train.replay import MixedRows
from edgebit.train.rows import Document, PackedRows


def test_replay_takes_its_share_evenly_and_resumes():
    """Of 8 rows with a share of 1/4, two are old; restored in the middle, the same rows follow."""

    def source(token):
        return PackedRows(lambda number: Document([token, number], [token, number]), 2, waiting=2)

    mixed = MixedRows(source(1), source(2), 0.25)
    first = [row.ids for row in mixed.take(3)]
    state = json.loads(json.dumps(mixed.state()))
    rest = [row.ids for row in mixed.take(5)]
    again = MixedRows(source(1), source(2), 0.25)
    again.restore(state)
    assert [ids[0] for ids in first + rest] == [1, 1, 1, 2, 1, 1, 1, 2]
    assert [row.ids for row in again.take(5)] == rest
    with pytest.raises(TrainError, match="between 0 and 1"):
        MixedRows(source(1), source(2), 1.0)


def write_data(path, words):
    lines = [{"input": f"{words[i % len(words)]} {i}", "output": f"{words[0]} {i % 3}"} for i in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.reference
def test_a_master_is_trained_on_with_rehearsal(native, reference_checkpoint, tmp_path):
    """All weights: what was held out of the old data is told before and after, and is learnt with the new."""
    pytest.importorskip("torch")
    new, old = (
        write_data(tmp_path / "new.jsonl", ["open", "close"]),
        write_data(tmp_path / "old.jsonl", ["dim", "heat"]),
    )
    arguments = [new, "--from", reference_checkpoint("bitnet-bf16"), "--replay", old, "--eval-share", 0.2,
                 "--row-length", 64, "--batch-tokens", 256, "--steps", 8, "--learning-rate", 1e-2, "--warmup", 0,
                 "--threads", 1, "--no-compile", "--out", tmp_path / "out", "--json"]  # fmt: skip
    done = CliRunner().invoke(cli, ["train", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["rehearsed"]
    assert told["tokens"] > 0
    assert told["loss"] < told["loss_before"] - 1

    alone = CliRunner().invoke(cli, ["train", str(new), "--replay", str(old), "--out", str(tmp_path / "none")])
    assert alone.exit_code == 2
    assert "--replay goes with --from" in alone.stderr
