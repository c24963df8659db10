"""Checkpoints as Hugging Face keeps them: a folder of config.json, safetensors and tokenizer.json."""
