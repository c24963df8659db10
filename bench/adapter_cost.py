"""What a side path costs: CPU time of a token without an adapter, and with one of several ranks, on one thread.

python bench/adapter_cost.py                     a layer in the shape of BitNet b1.58 2B4T, random weights
python bench/adapter_cost.py --model chat.ebm    a model file or bundle

CPU time, not the clock's: other work on the machine moves it less. Every projection has a pair. Each figure is the
least of several rounds, in milliseconds; bytes are those of the adapter file.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgebit.bundle.archive import locate_model  # noqa: E402
from edgebit.bundle.conf_section import read_conf  # noqa: E402
from edgebit.bundle.model_format import Encoding  # noqa: E402
from edgebit.runtime.adapter import Adapter  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.library import Library  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402
from edgebit.runtime.token_ids import spread_ids  # noqa: E402
from tests.kernels.random_adapter import random_adapter  # noqa: E402
from tests.kernels.tiny_model import TinyModel, tiny_conf  # noqa: E402

PROMPT, DECODED, ROUNDS = 128, 16, 5
LAYER = {
    "hidden_size": 2560, "ffn_size": 6912, "n_layers": 1, "n_heads": 20, "n_kv_heads": 5, "head_dim": 128,
    "vocab_size": 256, "context_max": 512,
}  # fmt: skip
FORMS = [(0, None), *((rank, encoding) for rank in (8, 16, 64) for encoding in (Encoding.F16, Encoding.I8))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    asked = parser.parse_args()
    library = Library.load()
    with _opened(library, asked.model) as model:
        conf = read_conf(model.section("CONF") or b"")
        ids = spread_ids(conf.vocab_size, PROMPT + DECODED)
        print(f"{library.isa}, one thread\nrank  type  bytes       prefill ms/token  decode ms/token")
        for rank, encoding in FORMS:
            with Engine(model, ctx_len=PROMPT + DECODED) as engine:
                size, adapter = 0, None
                if encoding is not None:
                    content = random_adapter(model, conf, rank=rank, encoding=encoding).pack()
                    adapter, size = Adapter.open(library, model, content), len(content)
                engine.set_adapter(0, adapter)
                prefill, decode = _measure(engine, list(ids))
            name = encoding.name.lower() if encoding is not None else "-"
            print(f"{rank:4}  {name:4}  {size:10,}  {prefill:16.3f}  {decode:15.3f}", flush=True)


@contextmanager
def _opened(library: Library, path: Path | None) -> Iterator[Model]:
    if path is None:
        with Model.from_bytes(library, TinyModel(tiny_conf(**LAYER)).to_bytes()) as model:
            yield model
        return
    place = locate_model(path)
    with Model.open(library, place.path, offset=place.offset, size=place.size) as model:
        yield model


def _measure(engine: Engine, ids: list[int]) -> tuple[float, float]:
    """CPU milliseconds a token, of prefill and of decode."""
    prefills, decodes = [], []
    for _ in range(ROUNDS):
        engine.truncate()
        prefills.append(_cpu_ms(lambda: engine.eval(ids[:PROMPT], n_best=1)) / PROMPT)
        decodes.append(min(_cpu_ms(lambda token=token: engine.eval([token], n_best=1)) for token in ids[PROMPT:]))
    return min(prefills), min(decodes)


def _cpu_ms(work: Callable[[], None]) -> float:
    started = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - started) / 1e6


if __name__ == "__main__":
    main()
