"""Service: everything that can be checked of a model file alone, and beside the checkpoint it was converted from."""
