"""Service: everything that can be checked of a model file beside the checkpoint it was converted from."""
