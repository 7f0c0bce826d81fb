"""Rows of a comparison are published once, and become a table with no number typed by hand."""

import json

import pytest
from comparison_rows import row

from benchmarks.comparison import comparison_table, main, publish
from benchmarks.harness import RESULTS
from ptr_fast.errors import DataError
from ptr_robot.comparison.rows import write_rows

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


@pytest.mark.parametrize("file", sorted(RESULTS.glob("compare_*.jsonl")), ids=lambda file: file.stem)
def test_no_committed_row_stands_twice(file):
    lines = file.read_text().splitlines()
    assert len(lines) == len(set(lines)) > 0


def test_the_table_has_what_the_rows_say(folders):
    publish(*folders)
    header, _, *lines = comparison_table("compare_tiny", folders[1])
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


def test_variants_are_compared_with_the_baseline_of_their_grid(tmp_path):
    rows = [row("proposals", 0, "1110"), row("no-layer-norm", 0, "1000")]
    write_rows([each | {"grid": "claims"} for each in rows], tmp_path / "compare_claims.jsonl")
    header, _, *lines = comparison_table("compare_claims", tmp_path)
    cells = {line[1]: dict(zip(header, line, strict=True)) for line in lines}
    assert cells["no-layer-norm"]["minus CQL with cloned proposals (ours), points"].startswith("-50 (")


def test_a_damaged_row_is_named(folders):
    grid, results = folders
    with open(grid / "rows.jsonl", "a") as file:
        file.write('{"grid": "ti')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 8: not a row of a comparison"):
        publish(grid, results)
    assert not list(results.iterdir())


def refused(folders, rows, words):
    """Publishing these rows is refused with these words, and writes nothing."""
    grid, results = folders
    (grid / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    before = {file: file.read_bytes() for file in results.iterdir()}
    with pytest.raises(DataError, match=words) as told:
        publish(grid, results)
    assert str(told.value).startswith(str(grid / "rows.jsonl"))
    assert {file: file.read_bytes() for file in results.iterdir()} == before


def test_another_mix_does_not_stand_in_one_cell_either_where_both_rows_tell_it(folders):
    publish(*folders)  # rows of an earlier version, which do not
    told = [{**ROWS[0], "mix": 0.9}, {**ROWS[1], "mix": 0.2}]
    refused(folders, told, "mix would be 0.9 with seed 0 and 0.2 with seed 1")
    told = [{**ROWS[0], "mix": 0.5, "critic_mix": 0.9}, {**ROWS[1], "mix": 0.5}]
    refused(folders, told, "critic_mix would be 0.9 with seed 0 and None with seed 1")
    (folders[0] / "rows.jsonl").write_text(json.dumps(told[0]) + "\n")
    assert publish(*folders)[1] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": None}, "line 2: .*row.grid: expected str, got None"),
        ({"data": ["x"]}, "line 2: .*row.data: expected str"),
        ({"seed": "0"}, "line 2: .*row.seed: expected int, got '0'"),
        ({"phase": "later"}, "line 2: .*row.phase: expected one of"),
        ({"outcomes": ["1", "1"]}, "line 2: .*row.outcomes: expected str"),
        ({"outcomes": "x111"}, "line 2: .*4 successes, but outcomes x111"),
        ({"outcomes": "2111"}, "line 2: .*4 successes, but outcomes 2111"),
        ({"outcomes": "1120", "successes": 2}, "line 2: .*2 successes, but outcomes 1120"),
        ({"steps": ["a", None, 1, 1]}, r"line 2: .*row.steps\[0\]: expected int, got 'a'"),
        ({"outcomes": "", "steps": [], "successes": 0, "num_trials": 0}, "line 2: .*not one per trial"),
        ({"grid": "other"}, "expected rows of one grid, got 'other' and 'tiny'"),
    ],
)
def test_a_wrong_row_is_refused(folders, change, words):
    refused(folders, [ROWS[0], {**ROWS[2], **change}], words)


@pytest.mark.parametrize("name", ["a/b", "../../X", "", "a b", "a.b"])
def test_a_grid_whose_name_is_no_files_name_is_refused(folders, name):
    refused(folders, [{**ROWS[0], "grid": name}], "grid: expected letters, digits, - and _, got ")


def test_rows_of_no_grid(folders):
    refused(folders, [{name: value for name, value in ROWS[0].items() if name != "grid"}], "line 1: .*key 'grid'")
    refused(folders, [], "expected rows of one grid, got none yet")
    folders[0].joinpath("rows.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: .*nested too deeply"):
        publish(*folders)
    folders[0].joinpath("rows.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: not a row of a comparison"):
        publish(*folders)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_steps": 90}, "max_steps would be 90 with seed 0 and 60 with seed 1"),
        ({"trial_seed": 7}, "trial_seed would be 7 with seed 0 and 0 with seed 1"),
        ({"elites": 4}, "elites would be 4 with seed 0 and None with seed 1"),
        ({"start": "hard"}, "start would be hard with seed 0 and None with seed 1"),
        ({"updates": {"D2-bc-0-pretrain": 9}}, "updates of pretrain would be 9 with seed 0 and None with seed 1"),
        (row("bc", 0, "10"), "D2, bc, after, selected, mean: num_trials would be 2 with seed 0 and 4 with seed 1"),
    ],
)
def test_other_settings_do_not_stand_in_one_cell(folders, change, words):
    refused(folders, [*ROWS[1:], {**ROWS[0], **change}], words)
    (folders[0] / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    publish(*folders)
    refused(folders, [{**ROWS[0], **change}], words)


def test_other_settings_of_every_seed_take_the_place_of_the_old_ones(folders):
    publish(*folders)
    (folders[0] / "rows.jsonl").write_text("".join(json.dumps({**r, "max_steps": 90}) + "\n" for r in ROWS))
    assert publish(*folders)[1] == len(ROWS)


def test_a_mistake_is_one_line(folders):
    with pytest.raises(SystemExit, match=r"^error: .*none/rows\.jsonl: No such file or directory$"):
        main([str(folders[0] / "none")])
