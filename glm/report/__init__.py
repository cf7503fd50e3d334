"""Shows what a run did: pages that open from disk, plots, the model card."""
