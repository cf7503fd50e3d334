"""Checks a machine: describes it, warns of likely problems, and compares its device with the CPU."""
