"""``pytest benchmarks`` runs the test functions of every ``bench_*.py``; add ``-s`` to see the rows."""

import os

import pytest
import torch

from ptr_fast import native


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_kept_memory():
    """As in training, but one thread unless PTR_FAST_BENCH_THREADS says otherwise."""
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    native.keep_freed_memory()
