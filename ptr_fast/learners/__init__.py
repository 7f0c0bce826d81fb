"""Learners: one ``update`` each. CQL (the paper's) and behaviour cloning."""

from ptr_fast.learners.base import Learner
from ptr_fast.learners.bc import BcLearner
from ptr_fast.learners.cql import CqlLearner, CqlTerms
from ptr_fast.learners.draws import BcDraws, Draws

__all__ = ["BcDraws", "BcLearner", "CqlLearner", "CqlTerms", "Draws", "Learner"]
