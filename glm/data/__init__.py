"""From lines of a file to padded batches: records, templates, examples."""
