"""Service: a process of ours that is measured: `process` starts and asks it, `serving` is what runs in it."""
