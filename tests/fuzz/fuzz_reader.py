"""python fuzz_reader.py READER CORPUS [libFuzzer's options]: fuzz one reader of READERS, with coverage.

Fails at anything that is not EdgebitError, at a warning of numpy, at an input that takes 10 s, and where the process
takes 1 GB more than at its start.
"""

import resource
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgebit"]):
    from edgebit.checkpoint.chat_template import rendering
    from edgebit.errors import EdgebitError
    from tests.fuzz.json_mutator import mutate_json
    from tests.fuzz.readers import READERS

GIB = 1 << 30


def main(name: str, corpus: Path, options: list[str]) -> None:
    warnings.simplefilter("error", RuntimeWarning)  # numpy's: a user would see them
    rendering._CPU_S = 3  # so that a template without end is refused before the fuzzer gives it up
    reader = READERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp(prefix="edgebit-fuzz-"))

    def run(data: bytes) -> None:
        try:
            reader.read(data, folder)
        except EdgebitError as error:
            str(error)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate_json(data, max_size, seed, atheris.Mutate)

    arguments = [sys.argv[0], "-timeout=10", "-rss_limit_mb=1024", f"-max_len={reader.max_len}", *options, str(corpus)]
    atheris.Setup(arguments, run, **({"custom_mutator": mutate} if reader.is_json else {}))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + GIB, resource.RLIM_INFINITY))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
