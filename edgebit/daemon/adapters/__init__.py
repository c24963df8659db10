"""Adapters beside the model: kept in the state folder, open in the engine, loaded and unloaded at any time."""
