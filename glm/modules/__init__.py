"""The parts that all models are built of, for any device: attention, blocks, caches, layers, losses."""
