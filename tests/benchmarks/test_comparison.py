"""Rows of a comparison are published once, and become a table with no number typed by hand."""

import json

import pytest

from benchmarks.comparison import comparison_table, publish
from benchmarks.tables import ran_on
from ptr_fast.errors import DataError


def row(method, seed, outcomes, checkpoint="selected", phase="after", isa="AVX2"):
    return {
        **{"grid": "tiny", "data": "D2", "method": method, "phase": phase, "checkpoint": checkpoint, "mode": "mean"},
        **{"seed": seed, "successes": outcomes.count("1"), "num_trials": len(outcomes), "outcomes": outcomes},
        **{"steps": [30 if ok == "1" else 7 for ok in outcomes], "max_steps": 60, "trial_seed": 0},
        **{"reached": 4, "lifted": 3},
        "environment": {"torch_isa": isa},
    }


ROWS = [
    row("bc", 0, "1000"),
    row("bc", 1, "0000"),
    row("cql", 0, "1111"),
    row("cql", 1, "1111"),
    row("cql", 0, "1110", "last"),
    row("cql", 0, "1100", "last", "before"),
    row("cql", 0, "0000", isa="AVX512"),
]


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "grid").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "grid" / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    return tmp_path / "grid", tmp_path / "results"


def test_rows_are_added_once(folders):
    file, number = publish(*folders)
    assert (file.name, number) == ("compare_tiny.jsonl", len(ROWS))
    assert publish(*folders)[1] == 0
    assert len(file.read_text().splitlines()) == len(ROWS)


def test_the_table_has_what_the_rows_say(folders):
    publish(*folders)
    header, _, *lines = comparison_table("compare_tiny", ran_on, folders[1])
    cells = {(line[1], line[3]): dict(zip(header, line, strict=True)) for line in lines}
    ptr = cells["PTR (CQL as published)", "AVX2"]
    assert (ptr["selected"], ptr["each seed"], ptr["before"], ptr["last"]) == ("8/8", "100, 100", "2/4", "3/4")
    assert ptr["95 % over seeds"] == "68 to 100"  # all trials alike: Wilson's interval of 8 of 8
    assert ptr["minus BC, points"].startswith("+88 (")  # 7 of 8 pairs
    assert ptr["steps"] == "30"
    assert ptr["decisions"] == "30 (30 to 30)"
    assert cells["BC", "AVX2"]["selected"] == "1/8"
    # A failure counts as the limit of 60, whenever it ended. By hand: (30 + 7 * 60) / 8.
    assert cells["BC", "AVX2"]["decisions"].startswith("56 (")
    assert cells["PTR (CQL as published)", "AVX512"]["decisions"] == "60"
    assert cells["PTR (CQL as published)", "AVX512"]["selected"] == "0/4"


def test_a_damaged_row_is_named(folders):
    grid, results = folders
    with open(grid / "rows.jsonl", "a") as file:
        file.write('{"grid": "ti')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 8: not a row of a comparison"):
        publish(grid, results)
    assert not list(results.iterdir())
