"""Many devices at once: which there are (inventory.py), what is next (rollout.py, pure), and doing it (runner.py)."""
