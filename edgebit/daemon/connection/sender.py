"""What goes out: as large as the broker takes it, counted, and kept until the broker has it."""

import logging
from collections import Counter

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from edgebit.daemon.connection.acknowledgements import Deliveries
from edgebit.daemon.connection.packets import packet_size, publish_properties
from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.contract.topics import DeviceTopics

log = logging.getLogger("edgebit.mqtt")

GIVING_WAY = 8  # one of so many places in the queue is for messages that give way to answers


class Sender:
    """Publishes through one client after the other, from any thread."""

    def __init__(
        self, client: paho.Client, mqtt5: bool, topics: DeviceTopics, counters: Counter[str], queue_max: int
    ) -> None:
        """`queue_max`: messages that a client keeps until the broker has them."""
        self._queue_max = queue_max
        self._client = client
        self._mqtt5 = mqtt5
        self._topics = topics
        self._counters = counters
        self._deliveries = Deliveries()
        self.packet_max = 0  # the largest packet the broker takes, in bytes; 0: any

    @property
    def room(self) -> int:
        """How many more messages can wait for the broker."""
        return max(0, self._queue_max - self._deliveries.waiting())

    def publish(self, message: Outgoing) -> paho.MQTTMessageInfo | None:
        """Send a message, or keep it until the broker is back (QoS 1). None where it was dropped, which is counted."""
        properties = publish_properties(message) if self._mqtt5 else None
        if self.packet_max and (size := packet_size(message, properties)) > self.packet_max:
            topic = self._topics.nameless(message.topic)
            log.error("a message of %d bytes to %s is above the broker's %d", size, topic, self.packet_max)
            self._counters["dropped_too_large"] += 1
            return None
        if message.gives_way and self._deliveries.waiting(giving_way=True) >= max(1, self._queue_max // GIVING_WAY):
            self._counters["dropped"] += 1
            return None
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        kept = info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and message.qos > 0
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS and not kept:
            self._counters["dropped"] += 1
            if message.no_room is not None:
                message.no_room()
            return None
        self._counters["published"] += 1
        self._deliveries.sent(info.mid, message)
        return info

    def confirmed(self, packet_id: int) -> None:
        """The broker has the message."""
        self._deliveries.confirmed(packet_id)

    def connection_ended(self) -> None:
        """What was sent at QoS 0 is not waited for any longer."""
        self._deliveries.connection_ended()

    def change_client(self, client: paho.Client, mqtt5: bool) -> None:
        """Go on with another client; what the broker has not confirmed goes over to it."""
        self._client, self._mqtt5 = client, mqtt5
        for message in self._deliveries.take_all():
            if not message.retain:  # states are said anew at every connection
                self.publish(message)
