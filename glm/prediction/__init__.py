"""Predicts text from records and scores it, for training and `predict.py` alike."""
