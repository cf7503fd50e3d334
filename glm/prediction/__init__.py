"""From records to generated text and its scores: what training and `predict.py` share."""
