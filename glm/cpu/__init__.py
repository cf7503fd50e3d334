"""Compiled loops of a CPU: arrays in, arrays out. They know no model."""
