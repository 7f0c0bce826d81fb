"""What the learners that imitate recorded actions share; no learner itself."""
