"""A training of the sorting task as a program, to be killed: FOLDER STEP; it kills itself after STEP, 0: never.

Prints each loss as a hexadecimal float, so that equal lines are equal bits.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from sorting_task import SHAPE, sorting_documents

from edgebit.train.decoder import Decoder
from edgebit.train.records import Listener, Record
from edgebit.train.rows import PackedRows, packed_once, shuffled
from edgebit.train.schedule import Schedule
from edgebit.train.trainer import Settings, train

STEPS = 12


def main(folder: Path, last: int) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    documents = sorting_documents(150)

    def stepped(record: Record) -> None:
        print(record.step, record.loss.hex(), record.held_out_loss, flush=True)
        if record.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        Decoder(SHAPE),
        PackedRows(shuffled(documents[20:], 1), 48),
        Settings(schedule=Schedule(steps=STEPS, warmup=3), batch_rows=4, accumulate=2, compile=False,
                 evaluate_every=4, save_every=3),
        held_out=packed_once(documents[:20], 48),
        state_folder=folder,
        listener=Listener(stepped=stepped, noted=lambda words: print("noted:", words)),
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
