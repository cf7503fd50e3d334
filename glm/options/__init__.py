"""What a user can set: typed options, read from a file and the command line."""
