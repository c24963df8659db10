"""Service: asking devices over MQTT (docs/mqtt.md), for `edgebit ask` and whatever else wants an answer.

The other end of edgebit/daemon, whose topics it shares. Answers are put together by their frames' numbers and compared
with the count and the hash in the last one, so that a loss is seen.
"""
