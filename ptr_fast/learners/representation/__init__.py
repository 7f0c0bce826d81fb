"""What learners of an image encoder alone share; no learner itself."""
