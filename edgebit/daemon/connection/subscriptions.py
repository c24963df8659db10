"""The filters of requests that one connection has asked the broker for, and what has been granted of them."""

import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.subscribeoptions import SubscribeOptions


class Subscriptions:
    """Asked for as a whole: the broker's answer to the last asking counts."""

    def __init__(self, client: paho.Client, mqtt5: bool) -> None:
        self._client = client
        self._mqtt5 = mqtt5
        self._lock = threading.Lock()
        self._packet_id: int | None = None  # of what the broker was asked last
        self.asked: tuple[str, ...] = ()
        self.heard: tuple[str, ...] = ()

    def ask(self, filters: tuple[str, ...]) -> MQTTErrorCode:
        """The first filters of a connection."""
        self.asked = filters
        code, self._packet_id = self.send(*filters)
        return code

    def change(self, filters: tuple[str, ...]) -> None:
        """Other filters than before, from any thread."""
        gone = [topic for topic in self.asked if topic not in filters]
        with self._lock:
            self.asked, self.heard = filters, ()
            if gone:
                self._client.unsubscribe(gone)
            if filters:
                _, self._packet_id = self.send(*filters)

    def send(self, *filters: str) -> tuple[MQTTErrorCode, int | None]:
        """Subscribe to filters, whose answer is nobody's here; gives the packet's id too."""
        if not self._mqtt5:
            return self._client.subscribe([(topic, 1) for topic in filters])
        # The retain flag stays on, so that a retained request can be told and refused; stored ones do not come.
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        return self._client.subscribe([(topic, options) for topic in filters])

    def is_answer(self, packet_id: int) -> bool:
        """Whether a SUBACK is about the filters asked for last."""
        with self._lock:  # another thread may be about to note the packet id
            return packet_id == self._packet_id

    def granted(self) -> None:
        """The broker has agreed to what was asked last."""
        self.heard = self.asked
