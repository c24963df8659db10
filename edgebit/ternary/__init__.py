"""Ternary numbers: absmean quantisation and the layouts that ternary weights are stored in."""
