"""What merging does to an adapter, on data: of the master alone, with the adapter beside it, and with it merged."""

from collections.abc import Sequence
from pathlib import Path

from edgebit.checkpoint.hugging_face.peft_folder import read_peft_folder
from edgebit.progress import Progress, unwatched
from edgebit.train.batch import Evaluation, evaluate
from edgebit.train.data.preparation import DataSettings, prepare_with
from edgebit.train.data.rendering import Encoder
from edgebit.train.lora.adapter import load_adapter
from edgebit.train.lora.base import open_base
from edgebit.train.master import read_master
from edgebit.train.master_config import read_config
from edgebit.train.prepared_rows import evaluated_rows
from edgebit.train.rows import Row
from edgebit.train.shape import ModelShape

_ROW_LENGTH = 256  # tokens, where the context has as many


def rows_of(master: Path, paths: Sequence[Path], progress: Progress = unwatched) -> list[Row]:
    """Rows of the data at `paths`, in the tokens of the master.

    Raises TrainError where the data or the master cannot be read, TokenizerError where the master has no tokenizer.
    """
    length = min(_ROW_LENGTH, ModelShape.from_config(read_config(master)).max_position_embeddings)
    with Encoder(master) as encoder:
        data = prepare_with(encoder, paths, DataSettings(), length=length, progress=progress)
        return evaluated_rows(data.train, length)


def evaluate_beside(master: Path, adapter_folder: Path, rows: Sequence[Row]) -> tuple[Evaluation, Evaluation]:
    """The master alone, and with the adapter beside it. Raises TrainError where the two do not fit."""
    decoder, _ = open_base(master)
    alone = evaluate(decoder, rows)
    load_adapter(decoder, read_peft_folder(adapter_folder))
    return alone, evaluate(decoder, rows)


def evaluate_merged(folder: Path, rows: Sequence[Row]) -> Evaluation:
    """The merged master, as it was written."""
    merged: Evaluation = evaluate(read_master(folder), rows)
    return merged
