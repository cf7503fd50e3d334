"""What every model is built of, on any device: attention, blocks, caches, layers, loss."""
