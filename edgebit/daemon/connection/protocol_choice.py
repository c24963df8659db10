"""Which MQTT is spoken with the broker: as configured, or found out."""

import logging

from edgebit.daemon.connection.attempt import CLOSED_AT_ONCE, SILENT, Attempt

log = logging.getLogger("edgebit.mqtt")


class ProtocolChoice:
    """MQTT 5, and 3.1.1 where the broker shows that it does not know it."""

    def __init__(self, wanted: str) -> None:
        """`wanted` is auto, 5 or 3.1.1."""
        self.mqtt5 = wanted != "3.1.1"
        self._fixed = wanted != "auto"
        self._closed_unanswered = 0

    @property
    def is_probing(self) -> bool:
        """Whether it is not known yet that the broker speaks MQTT 5."""
        return self.mqtt5 and not self._fixed

    def learn(self, attempt: Attempt) -> None:
        """From an attempt that has ended; mqtt5 is another then where that is worth a try."""
        if attempt.ready_at and self.mqtt5:
            self._fixed = True
        closed = not attempt.answered and attempt.reason in CLOSED_AT_ONCE
        self._closed_unanswered = self._closed_unanswered + 1 if closed else 0
        silent = not attempt.answered and attempt.reason == SILENT
        unspoken = attempt.reason == "Unsupported protocol version" or silent or self._closed_unanswered >= 2
        if self._fixed or not unspoken:
            return
        self.mqtt5 = not self.mqtt5
        self._closed_unanswered = 0
        if not self.mqtt5:
            log.info("the broker does not speak MQTT 5: trying 3.1.1")
