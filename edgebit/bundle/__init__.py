"""The formats edgebit writes and devices read: bundles and model files."""
