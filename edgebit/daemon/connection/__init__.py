"""The way to the broker, kept open."""
