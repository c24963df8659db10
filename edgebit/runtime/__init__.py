"""The native engine as Python sees it: ctypes bindings, and sessions that turn a prompt into text."""
