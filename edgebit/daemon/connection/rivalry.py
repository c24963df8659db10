"""Whether another client seems to connect under our id: each of the two is thrown out whenever the other comes.

A broker of MQTT 5 says so. Under 3.1.1, and from brokers of few words, all that shows is a connection that ends without
a reason soon after it was ready, again and again; a bad network or a broker's own limits look the same.
"""

TAKEN_OVER = "Session taken over"
QUICK_S = 10.0  # a connection that ended sooner after it was ready may have been thrown out
LOSSES = 3  # in a row
STEADY_S = 180.0  # a connection that held so long has no rival: one waits up to a minute between two attempts


class Rivalry:
    """Follows how connections end."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._quick = 0
        self._words: str | None = None

    def words(self, connected_s: float) -> str | None:
        """What the owner should know, while the present connection has held for so long."""
        return self._words if connected_s < STEADY_S else None

    def ended(self, connected_s: float, reason: str, *, refused: bool) -> bool:
        """Take the end of a connection that was ready for so long; gives whether a rival seems to be why.

        refused: the broker gave a reason that is another one
        """
        mend = "two devices with one name? Give this one its own: [device] name"
        if connected_s >= STEADY_S:
            self._quick, self._words = 0, None
        if reason == TAKEN_OVER:
            self._words = f"another client connects as {self._client_id}: {mend}"
            return True
        if refused or not connected_s:
            return False
        self._quick = self._quick + 1 if connected_s < QUICK_S else 0
        if self._quick >= LOSSES and self._words is None:
            self._words = (
                f"{self._quick} connections in a row were lost within {QUICK_S:g} s: perhaps another client connects "
                f"as {self._client_id}: {mend}. Else the network, or a limit of the broker"
            )
        return self._words is not None
