"""Stores and runs that were trained on them, made once for every file of tests, and a copy that a test may change."""

from pathlib import Path

import pytest
from changing_world import copy_home, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def world(home, tmp_path) -> Path:
    return copy_home(home, tmp_path)
