"""A model split over processes: what is split how, the split layers, and running them without a GPU."""
