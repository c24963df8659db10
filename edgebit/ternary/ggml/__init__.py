"""The layouts that ternary weights have in GGUF files of llama.cpp, bitnet.cpp and ik_llama.cpp."""
