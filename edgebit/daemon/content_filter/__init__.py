"""Rules for the text of prompts and answers (docs/privacy.md)."""
