"""Tries a machine out: what it is, what of it will surprise, and whether a device computes what the CPU does."""
