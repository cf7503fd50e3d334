"""Computes metrics of generated text: segmentation into tokens, then the metrics. Strings only, no model."""
