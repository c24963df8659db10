"""What deploy calls on the device: install, settings, service, the check of a new bundle."""
