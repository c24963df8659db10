"""Runs the folders that `edgebit export onnx` writes, with ONNX Runtime."""
