"""Checkpoints as llama.cpp and its relatives keep them: one GGUF file, or one in parts."""
