"""Keeping a device cool: from readings to what the engine may do."""
