"""Training data: read from files, checked, split, and rendered to the tokens that the engine computes.

Needs no torch, and `tokenizers` for the training of a tokenizer alone.
"""
