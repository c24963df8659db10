"""Home Assistant: the device as entities there, and as one that its voice assistant can talk to."""
