"""Service: everything that could be wrong on this machine and on a device, and how to mend it. It changes nothing.

machine.py looks here, device.py at a device over a transport; both give findings.
"""
