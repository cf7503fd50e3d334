"""From files to padded batches: records, templates, examples."""
