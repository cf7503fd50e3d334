"""Trains models with PaddleNLP's Trainer, extended by objectives, the order of data, evaluation by generation, and
exact resuming."""
