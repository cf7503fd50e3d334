"""Typed options, read from a file and the command line."""
