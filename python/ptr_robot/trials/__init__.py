"""Trials of policies on a robot in real time: the run, its sheet, its recordings, its page."""
