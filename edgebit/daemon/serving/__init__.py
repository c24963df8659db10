"""From jobs to answers."""
