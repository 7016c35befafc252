"""Vectors by the nearest one of a codebook, a codebook that follows them, and a prior over the codes."""
