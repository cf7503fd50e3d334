"""Adapters: small additions to a frozen model, trained and saved without it."""
