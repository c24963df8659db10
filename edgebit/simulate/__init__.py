"""Service: the governor against a simulated device, so that its levers are kept or dropped by figures."""
