"""Behaviour cloning."""

from ptr_fast.learners.bc.update import BcLearner

__all__ = ["BcLearner"]
