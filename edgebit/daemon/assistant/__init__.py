"""What a device says of itself: questions about it are answered with its own figures, and not with a model's."""
