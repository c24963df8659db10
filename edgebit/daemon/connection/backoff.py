"""How long to wait before the next connection attempt."""

import random
from dataclasses import dataclass, field

BASE_S = 1.0
CAP_S = 60.0
STABLE_S = 60.0  # a connection that held this long makes the next attempt a first one
LEAST_S = 0.1


@dataclass(slots=True)
class Backoff:
    """Full jitter (each delay is drawn from 0 to a limit that doubles), so that a fleet does not come back at once."""

    rng: random.Random = field(default_factory=random.Random)
    attempts: int = 0

    def delay_s(self, *, connected_s: float, refused: bool) -> float:
        """Seconds to wait after a connection that held `connected_s` (0: it never came to be).

        refused: the broker said no in a way that asking again will not change; then the wait is long at once.
        """
        if connected_s >= STABLE_S:
            self.attempts = 0
        self.attempts += 1
        if refused:
            return self.rng.uniform(CAP_S / 2, CAP_S)
        return max(LEAST_S, self.rng.uniform(0, min(CAP_S, BASE_S * 2.0 ** min(self.attempts - 1, 10))))
