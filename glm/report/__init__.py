"""What a run shows of itself: pages that open from disk, plots, the model card."""
