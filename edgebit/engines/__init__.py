"""The engines that can answer on this machine: our own, ONNX Runtime, transformers."""
