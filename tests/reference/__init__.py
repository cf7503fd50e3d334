"""Slow, obvious reference implementations that the tests compare the product with; they never import `glm`."""
