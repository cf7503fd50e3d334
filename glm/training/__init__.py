"""PaddleNLP's Trainer around GLM: what the objective, the order of the data and evaluation need beyond it."""
