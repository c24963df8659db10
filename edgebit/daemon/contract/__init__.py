"""What a device and its callers say to each other: topics, requests, frames (docs/mqtt.md)."""
