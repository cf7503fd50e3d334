"""Model files of every format: finding, checking, reading, converting."""
