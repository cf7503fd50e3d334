"""Small additions that are trained in a model's place and saved without it."""
