"""Published numbers that ours stand beside: successes of trials on a real arm.

The table is the one of PTR's slides on its scenario "new task in a new domain" (arXiv 2210.05178; RSS 2023). The re-run
is by overlapping authors, as a baseline of V-PTR: nearly the same tasks, demonstrations collected anew, 12 trials each
(dibyaghosh.com/vptr). The two are not one experiment: success depends strongly on starts and demonstrations.
"""

__all__ = ["ALL_TASKS", "COLUMNS", "RERUN", "TASKS"]

COLUMNS = {
    "cql": "PTR",
    "bc": "BC, fine-tuned",
    "ar-bc": "AR-BC",
    "bet": "BeT",
    "cog": "COG",
    "bc-joint": "BC, joint",
    "cql-target": "CQL, target alone",
    "bc-target": "BC, target alone",
    "contrast": "R3M",
    "mae": "MAE",
}
"""Heading of the published column by our method that takes its place.

R3M was trained on videos of people; ``contrast`` is its objective on the prior data, and no R3M.
"""
TASKS = (
    ("croissant from bowl", 10, (7, 3, 5, 1, 4, 4, 0, 1, 1, 3)),
    ("sweet potato on plate", 20, (7, 1, 1, 0, 0, 0, 0, 0, 0, 1)),
    ("knife in pot", 10, (4, 2, 2, 0, 1, 3, 3, 0, 0, 0)),
    ("cucumber in pot", 10, (5, 0, 1, 0, 2, 1, 0, 0, 0, 0)),
)
"""Task, trials of each method, successes in the order of ``COLUMNS``."""
ALL_TASKS = (
    "all four",
    sum(trials for _, trials, _ in TASKS),
    tuple(sum(wins) for wins in zip(*(wins for _, _, wins in TASKS), strict=True)),
)
"""The same of all tasks together."""
RERUN = ("PTR, re-run by V-PTR", 5, 48)
