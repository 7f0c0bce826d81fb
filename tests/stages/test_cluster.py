"""Stages as jobs, by submitit's executors that need no cluster."""

import sys

import pytest

from ptr_robot.stages import Stage, run_stages
from ptr_robot.stages.cluster import Cluster, parse_options


def test_without_submitit_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"pip install 'ptr-fast\[cluster\]'"):
        Cluster(tmp_path, "local", 2, {})


def test_options_are_names_and_values():
    assert parse_options(["timeout_min=240", "slurm_partition=gpu"]) == {"timeout_min": 240, "slurm_partition": "gpu"}
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        parse_options(["timeout"])


@pytest.fixture(scope="module")
def submitit():
    """Imported before a test captures what is printed.

    Its import closes every handler of logging; absl's closes its stream too where that is not the present one, and it
    is pytest's own while ``capsys`` is at work.
    """
    return pytest.importorskip("submitit")


class Shell:
    """Makes clusters whose stages are lines for the shell."""

    def __new__(cls, *args):
        cluster = Cluster(*args)
        cluster.PROGRAM = ("sh", "-c")
        return cluster


@pytest.mark.usefixtures("submitit")
@pytest.mark.parametrize("kind", ["local", "debug"])
def test_stages_are_jobs(tmp_path, capsys, kind):
    stages = [Stage("one", [f"echo ran >> {tmp_path / 'one'}"]), Stage("beside", ["echo the reason; exit 3"])]
    stages += [Stage("two", [f"test -e {tmp_path / 'one'}"], after=["one"])]
    result = run_stages(stages, tmp_path, Shell(tmp_path, kind, 2, {"timeout_min": 5}), keep_going=True)
    assert list(result.failed) == ["beside"]
    assert "    the reason" in capsys.readouterr().out
    run_stages([stages[0], stages[2]], tmp_path, Shell(tmp_path, kind, 2, {}))
    assert (tmp_path / "one").read_text() == "ran\n"


@pytest.mark.usefixtures("submitit")
def test_an_option_that_submitit_does_not_know_is_named(tmp_path):
    with pytest.raises(ValueError, match="minutes"):
        Cluster(tmp_path, "local", 2, {"minutes": 5})
