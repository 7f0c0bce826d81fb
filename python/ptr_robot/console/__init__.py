"""What a person watches while a verb works: progress and videos."""
