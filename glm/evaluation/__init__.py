"""Turns generated text into figures: segmentation into tokens, then the metrics. Strings only, no model."""
