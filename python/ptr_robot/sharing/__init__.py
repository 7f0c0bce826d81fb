"""A checkpoint that others can use: as a folder with a model card, and on a hub."""
