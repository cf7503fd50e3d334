"""GLM: autoregressive blank infilling with 2D positions (Du et al. 2022)."""
