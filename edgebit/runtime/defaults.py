"""What an engine on a device is opened with unless the configuration says else, for all who count with it."""

BATCH_LEN = 128  # tokens of a prefill pass: the engine's own
CTX_LEN = 2048  # tokens, or the model's maximum where that is less; a longer context costs memory, so it is asked for
PREFIX_MEMORY_MIB = 12  # of what was computed for prompts: with DAEMON_MIB, 40 beside the engine
DAEMON_MIB = 28  # Python and the daemon's own beside the engine, measured: docs/performance.md
