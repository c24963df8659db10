"""Service: the engine's native files for a target, with zig, a compiler of this machine, or a container.

A builder that cannot be had is an error that says what to install; none is ever replaced by another without a word.
The same sources and toolchain give the same bytes, which are cached.
"""
