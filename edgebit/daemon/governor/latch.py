"""A yes or no that turns to the safe side at once, and back only once all has been well for a while."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latch:
    """Whether something is held back, and since when all has been well."""

    held: bool = False
    well_since: float | None = None  # monotonic seconds; None: it is not well now

    def after(self, *, hold: bool, well: bool, now: float, rest_s: float) -> "Latch":
        """The latch a moment later. `hold` sets it; `well` for `rest_s` on end opens it; between the two it stays."""
        if hold:
            return Latch(True, None)
        if not self.held:
            return self
        if not well:
            return Latch(True, None)
        since = now if self.well_since is None else self.well_since
        return Latch(False, None) if now - since >= rest_s else Latch(True, since)
