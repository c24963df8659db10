"""Quantisation-aware training of BitNet b1.58 with PyTorch (edgebit[train]): from scratch, or on from a master.

shape, rows, schedule and settings are plain Python; the other modules import torch when they are imported, so who calls
them asks requirements.require_packages() first.
"""
