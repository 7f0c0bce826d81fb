"""One training run: its settings, record, data, loop and log."""
