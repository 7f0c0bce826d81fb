"""Files of the published JAX code."""
