"""LoRA on a frozen ternary base: y = BitLinear(x) + scale B (A x), where A and B alone are trained.

Source: Hu et al. 2021 (arXiv:2106.09685), in the terms of peft 0.21, whose files are written and read. targets is plain
Python; the other modules import torch when they are imported.
"""
