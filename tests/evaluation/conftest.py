"""A store and a run of its own for every file of tests."""

import pytest
from valued_run import make_run, make_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def store(folder):
    return make_store(folder / "store")


@pytest.fixture(scope="module")
def run(folder, store):
    return make_run(folder / "run", store)
