"""From a message to a job or a refusal."""
