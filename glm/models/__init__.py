"""What a family of models is, and one folder for each."""
