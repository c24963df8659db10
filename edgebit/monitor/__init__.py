"""Service: a live view of devices over MQTT, and pictures of their history, for `edgebit monitor`."""
