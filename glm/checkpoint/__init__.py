"""Finding, checking and reading saved models."""
