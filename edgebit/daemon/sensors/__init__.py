"""What a device can tell about itself, each figure with its unit, source and age."""
