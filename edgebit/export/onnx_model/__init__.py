"""A model as an ONNX graph: nodes, packed weights in external data, and what takes the place of our operators."""
