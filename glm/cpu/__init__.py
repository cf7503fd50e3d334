"""Compiled loops for a CPU: arrays in, arrays out. They know no model."""
