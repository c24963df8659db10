"""Chat templates (Jinja): rendered in a sandbox, compiled to prompt programs, and those that edgebit has of its own."""
