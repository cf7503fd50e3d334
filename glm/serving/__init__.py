"""Serves a model over HTTP: a page to try it out, and an API."""
