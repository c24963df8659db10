"""The daemon's configuration: edgebitd.toml."""
