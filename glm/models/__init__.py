"""The protocol that every family of models follows, and one folder for each family."""
