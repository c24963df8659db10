"""What the daemon writes down of its callers, and how little that is."""
