"""Offline metrics on held-out demonstrations, and the ranking of checkpoints by them."""
