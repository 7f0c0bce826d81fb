"""Conservative Q-learning as PTR runs it."""

from ptr_fast.learners.cql.update import CqlLearner, CqlTerms

__all__ = ["CqlLearner", "CqlTerms"]
