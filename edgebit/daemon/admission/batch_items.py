"""The items of a batch as the requests that they would be if each had been sent alone, by the same caller."""

import dataclasses
import json

from edgebit.daemon.contract.messages import Address, BatchItem, Incoming
from edgebit.daemon.contract.topics import DeviceTopics


def sent_alone(item: BatchItem, incoming: Incoming) -> Incoming:
    """The message that the item would have been; `incoming` brought the batch."""
    payload = json.dumps(dict(item.fields), sort_keys=True).encode()
    user = tuple(pair for pair in incoming.user if pair[0] != "eb-id")
    own_place = incoming.response_topic if item.fields.get("reply_to") is None else None
    return dataclasses.replace(incoming, payload=payload, user=user, response_topic=own_place)


def first_address_of(item: BatchItem, batch: Address, topics: DeviceTopics) -> Address:
    """Where the item's answer goes as long as its own fields have not been looked at."""
    address = dataclasses.replace(batch, id=item.id, id_given=batch.id_given)
    if batch.topic_given:
        return address
    return dataclasses.replace(address, topic=topics.reply(batch.principal, item.id))
