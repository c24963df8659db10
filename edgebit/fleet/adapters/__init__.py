"""What other update managers and orchestrators take: files whose @NAMES@ edgebit/fleet/export.py fills in."""
