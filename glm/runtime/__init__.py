"""The process: where it runs, how it ends, files that appear whole. Knows no model."""
