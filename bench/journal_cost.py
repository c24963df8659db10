"""What the journal costs on a disk: time and bytes of a job, alone and where jobs that come together share a sync.

    python bench/journal_cost.py [--folder FOLDER] [--jobs 400] [--prompt 200] [--answer 400]

FOLDER (default: this one) lies on the disk to measure, such as the device's SD card. No daemon runs: the journal is
given jobs as admission and the worker give them. Prints JSON, a row for each number of jobs that are committed
together; times are medians. `block_kib` is what the kernel was given to write (write_bytes of /proc/self/io).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgebit.daemon.admission.journal import JobRecord, Journal
from edgebit.daemon.admission.journal_records import Asked, Identity, Place
from edgebit.daemon.config.sections import JournalConfig
from edgebit.daemon.contract.frames import Outgoing, encode_json

GROUPS = (1, 4, 16)
PLACE = Place("edgebit/v1/pi/out/alice/an-id-of-some-length", None)
FIGURES = {"usage": {"prompt_tokens": 100, "completion_tokens": 100}, "eval_duration": 10**9, "seed": 2**40}


class Syncs:
    """Counts and times fdatasync, and counts the bytes of pwrite."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self.written = 0
        self._sync, self._pwrite = os.fdatasync, os.pwrite
        os.fdatasync, os.pwrite = self.sync, self.pwrite

    def sync(self, handle: Any) -> None:
        self.took_ms.append(timed_ms(lambda: self._sync(handle)))

    def pwrite(self, handle: Any, data: Any, at: int, /) -> int:
        self.written += len(data)
        return self._pwrite(handle, data, at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--prompt", type=int, default=200, help="characters")
    parser.add_argument("--answer", type=int, default=400, help="characters")
    options = parser.parse_args()
    syncs = Syncs()
    rows = []
    for group in GROUPS:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            rows.append(measure(Path(name), syncs, group, options))
    print(json.dumps(rows, indent=1))


def measure(folder: Path, syncs: Syncs, group: int, options: argparse.Namespace) -> dict[str, Any]:
    """All jobs, `group` of them committed together."""
    syncs.took_ms, syncs.written = [], 0
    journal = Journal(folder / "journal", JournalConfig())
    blocks = block_bytes()
    accept_ms, finish_ms = [], []
    for first in range(0, options.jobs, group):
        records: list[JobRecord] = []

        def take(first: int = first, records: list[JobRecord] = records) -> None:
            for number in range(first, first + group):
                records.append(accept(journal, number, "p" * options.prompt))
            journal.commit()

        accept_ms.append(timed_ms(take) / group)
        for record in records:
            finish_ms.append(timed_ms(lambda record=record: finish(record, "w" * options.answer)))  # type: ignore[misc]
        journal.tick()
    journal.close()
    return {
        "together": group,
        "accept_ms_per_job": round(statistics.median(accept_ms), 3),
        "finish_ms_per_job": round(statistics.median(finish_ms), 3),
        "sync_ms": round(statistics.median(syncs.took_ms), 3),
        "sync_p99_ms": round(sorted(syncs.took_ms)[len(syncs.took_ms) * 99 // 100], 3),
        "syncs_per_job": round(len(syncs.took_ms) / options.jobs, 2),
        "kib_per_job": round(syncs.written / options.jobs / 1024, 2),
        "block_kib_per_job": round((block_bytes() - blocks) / options.jobs / 1024, 2),
    }


def accept(journal: Journal, number: int, prompt: str) -> JobRecord:
    identity = Identity(
        principal="alice", id=f"j{number}", id_given=True, fingerprint=bytes(16), connection=1, packet_id=number
    )
    asked = Asked(
        op="generate", fields={"prompt": prompt}, topic_given=False, series=None, ttl_s=600.0, at=journal.now()
    )
    return journal.accept(identity, PLACE, asked, 4096)


def finish(record: JobRecord, text: str) -> None:
    whole = {"id": record.entry.identity.id, "t": "done", "text": text, **FIGURES}
    for message in record.ending(Outgoing(topic="", payload=encode_json(whole), expiry_s=600), None, whole):
        if message.delivered is not None:
            message.delivered()


def timed_ms(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def block_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


if __name__ == "__main__":
    main()
