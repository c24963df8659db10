"""What a decode step of an exported folder costs with its KV cache in place, and with one that each run makes anew.

    edgebit synthesize --shape 2b4t --out ./synthetic
    edgebit export onnx ./synthetic --out ./synthetic-onnx
    python bench/onnx_kv_cache.py ./synthetic-onnx

Run it from a checkout whose build/host is up to date. Processor time of one thread, the median of some steps at each
length. For contrib operators: GroupQueryAttention runs both ways.
"""

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgebit.onnx_engine.decoder import Decoder  # noqa: E402
from edgebit.onnx_engine.folder import OnnxFolder  # noqa: E402
from edgebit.onnx_engine.session import OnnxSession  # noqa: E402
from edgebit.runtime.token_ids import spread_ids  # noqa: E402

LENGTHS, STEPS = (16, 512, 2048), 7


def main(path: Path) -> None:
    """Print milliseconds a token for both, at each length."""
    session = OnnxSession.open(OnnxFolder.open(path), threads=1)
    print(f"ONNX Runtime {session.version}, kernel {session.binding.state}: ms of one core for a token")
    for in_place in (True, False):
        decoder = Decoder(session, in_place=in_place)
        for length in LENGTHS:
            decoder.append(spread_ids(session.folder.conf.vocab_size, length - decoder.length, decoder.length))
            steps = [_step_ms(decoder) for _ in range(STEPS)]
            kind = "in place" if in_place else "made anew"
            print(f"{kind}, {length} tokens: {statistics.median(steps[1:]):.1f}", flush=True)


def _step_ms(decoder: Decoder) -> float:
    length, began = decoder.length, time.process_time()
    decoder.append([7])
    took = time.process_time() - began
    decoder.truncate(length)
    return 1e3 * took


if __name__ == "__main__":
    main(Path(sys.argv[1]))
