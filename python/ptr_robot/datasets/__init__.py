"""Readers of others' formats. Each one is a :class:`~ptr_robot.datasets.source.Source` of episodes for ``convert``."""
