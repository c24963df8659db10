"""When Home Assistant is told: at every connection, when the device has changed, and some time after it has started."""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

from edgebit.daemon.config.sections import HomeAssistantConfig
from edgebit.daemon.contract.frames import Outgoing, Publisher, encode_json
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.home_assistant.discovery import DeviceFacts, discovery_document, discovery_topic

log = logging.getLogger("edgebit.home_assistant")

BIRTH = b"online"


class Announcer:
    """Publishes the discovery document, and takes it back where it is not wanted any more.

    The topic that a document lies on is kept in `mark`: one that is switched off, or called otherwise since, is known
    there after a restart too.
    """

    def __init__(
        self,
        config: HomeAssistantConfig,
        publisher: Publisher,
        mark: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._publisher = publisher
        self._mark = mark
        self._clock = clock
        self._rng = rng or random.Random()
        self._said: bytes | None = None  # the document that the broker has
        self._sensors: frozenset[str] = frozenset()
        self._due: float | None = None  # when it is said again because Home Assistant has started

    def hears(self, incoming: Incoming) -> bool:
        """Whether a message was Home Assistant's word about itself, which is taken note of."""
        if incoming.topic not in self._config.listen:
            return False
        if incoming.payload.strip() == BIRTH and self._due is None:
            self._due = self._clock() + self._rng.uniform(0, self._config.birth_delay_s)
        return True

    def connected(self, facts: DeviceFacts) -> None:
        """A connection stands: a broker may have lost what it retained."""
        self._said = None
        if self._config.enabled:
            self.changed(facts)
        else:
            self._retract(keep="")

    def changed(self, facts: DeviceFacts) -> None:
        """Say the document where it is not what was said before. A sensor that was there once stays in it."""
        if not self._config.enabled:
            return
        self._sensors |= facts.sensors
        document = encode_json(discovery_document(facts.with_sensors(self._sensors)))
        if document != self._said:
            topic = discovery_topic(self._config.prefix, facts.topics)
            self._retract(keep=topic)
            self._publish(topic, document)
            self._said = document

    def tick(self) -> bool:
        """Whether Home Assistant has started and should be told now: then connected() is to be called."""
        if self._due is None or self._clock() < self._due:
            return False
        self._due = None
        return True

    def _publish(self, topic: str, document: bytes) -> None:
        try:
            self._mark.write_text(f"{topic}\n")
        except OSError as error:
            log.warning("%s cannot be written: a later change of name leaves %s behind: %s", self._mark, topic, error)
        self._publisher.publish(Outgoing(topic=topic, payload=document, retain=True))

    def _retract(self, keep: str) -> None:
        """Take back the document of before, unless it lies on the topic `keep`."""
        try:
            before = self._mark.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return
        if not before or before == keep:
            return
        log.info("taking the device off Home Assistant's topic %s", before)
        if self._publisher.publish(Outgoing(topic=before, payload=b"", retain=True)):
            self._mark.unlink(missing_ok=True)
