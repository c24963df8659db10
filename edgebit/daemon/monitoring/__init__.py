"""What the daemon knows of itself: figures now, their history, alerts, health, and who is told."""
