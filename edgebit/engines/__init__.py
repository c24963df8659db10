"""Service: the engines that can answer on this machine, our own, ONNX Runtime and transformers, behind one protocol.

`choice` says which one runs what; each module named *_engine holds one and has open_engine(path, options).
"""
