"""Distillation: a ternary student begins as a copy of an ordinary float model, its teacher, and learns to say the same.

The modules import torch when they are imported.
"""
