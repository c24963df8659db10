"""Service: `edgebit bench`: an engine on this machine, beside what the machine could do and what others do."""
