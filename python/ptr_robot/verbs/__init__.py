"""The verbs of ``ptr-fast``, one file each: options, one call, what is printed."""
