"""The program on the device: answers requests over MQTT with the native engine (docs/mqtt.md, docs/daemon.md).

Needs the standard library, paho-mqtt and the native library, nothing else.
"""
