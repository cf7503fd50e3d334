"""One module for each verb of `python -m glm`, with a `main(argv)` that may return an exit code."""
