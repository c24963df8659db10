"""Putting bundles on devices: look at the device, plan, send what it lacks, test, switch, and go back if it is silent.

Deciding is pure (plan.py); acting is install.py; the device's side of every act is its agent
(edgebit/daemon/install/agent.py), asked by device.py over a transport. Without Python on the device it is
runner_agent.sh, asked by runner_only.py.
"""
