"""``ptr-fast compare``: a grid of methods, data sets and seeds, its rows, its intervals and its page."""
