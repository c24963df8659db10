"""What absmean leaves of a merged update by its size: the table of docs/training.md.

    python bench/merge_effect.py

Weights of a normal distribution, [256, 256], and pairs of rank 8 that add so much to them (standard deviations).
"""

import numpy as np

from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair
from edgebit.merge import measure


def main() -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((256, 256), np.float32)
    print("| update | codes changed | kept | error |\n|---|---|---|---|")
    for size in (0.01, 0.03, 0.1, 0.3, 1.0):
        a, b = rng.standard_normal((8, 256), np.float32), rng.standard_normal((256, 8), np.float32)
        b *= np.float32(size) / (b @ a).std()
        found, _ = measure("", weights, weights + b @ a, LowRankPair(a, b, 1.0))
        print(f"| {size:g} | {found.codes_changed / found.weights:.1%} | {found.kept:.0%} | {found.error:.0%} |")


if __name__ == "__main__":
    main()
