"""Reads checkpoints: configuration, tensors one at a time, tokenizer and chat template."""
