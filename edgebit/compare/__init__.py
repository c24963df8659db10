"""Service: several engines on the same prompts, each in a process of its own, and how alike their answers are."""
