"""The process: device and environment, signals, atomic files. Knows no model."""
