"""Service: what a model will need and reach on a device, predicted before anything is built or sent.

Memory is counted from the model's own sizes; speed and energy are estimates of edgebit/roofline.py from a target's
figures. docs/plan.md has the formulas.
"""
