"""Service: two models compared, and where they differ first. Models are what open_checkpoint() opens."""
