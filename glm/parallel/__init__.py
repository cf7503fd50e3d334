"""Splitting a model over processes: the plan of what is split how, and running it without a GPU."""
