"""The tables of measured rows: what failed or was left out stays visible and hides nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import bench_gpu, tables

GPU = {"environment": {"gpu": "a GPU"}}


def timed(case, **medians):
    names = list(medians)
    return {
        "name": "gpu_ops",
        "case": case,
        "variants": {name: {"median_ms": value} for name, value in medians.items()},
        "speedup": {name: round(medians[name] / medians[names[0]], 3) for name in names[1:]},
        "load_average": [1.0, 1.0],
        **GPU,
    }


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Writes rows to a file and returns the cells of their table, without its two lines of header, and the header."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def table(*rows):
        (tmp_path / "gpu_ops.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables.table("gpu_ops").splitlines()]
        assert len({len(line) for line in lines}) == 1
        return lines[2:], lines[0]

    return table


def test_the_newest_row_of_a_case_counts_and_says_who_was_first(table):
    lines, header = table(timed("a", triton=2.0, plain=4.0), timed("b", cuda=1.0, triton=3.0), timed("a", triton=1.0))
    assert header == ["case", "on", "ours ms", "times faster than triton", "load"]
    assert lines == [["a", "a GPU", "1 (triton)", "", "1.0"], ["b", "a GPU", "1 (cuda)", "3.00", "1.0"]]


def test_what_failed_is_a_line_and_takes_the_place_of_what_was_measured_before(table):
    failed = {"name": "gpu_ops", "case": "a", "failed": "AssertionError: wrong | far\nmore", **GPU}
    lines, header = table(timed("a", cuda=1.0), timed("b", cuda=1.0), failed)
    assert header[2] == "cuda ms"
    assert lines[0][:3] == ["a", "a GPU", "failed: AssertionError: wrong / far"]


def test_what_no_time_was_left_for_is_a_line_and_hides_no_measurement(table):
    left = [{"name": "gpu_ops", "case": case, "skipped": "3 s left", **GPU} for case in ("a", "b")]
    lines, _ = table(timed("a", cuda=1.0), *left)
    assert [line[2] for line in lines] == ["1", "not run: 3 s left"]


def test_a_program_ends_with_a_line_for_every_row(tmp_path, capsys):
    """Of a command "failed" and "skipped" are numbers of tests, of a measurement the reason."""
    rows = [
        {"name": "gpu_checks", "case": "test_a.py", "code": 1, "seconds": 2.0, "failed": 1, "passed": 3, "skipped": 2},
        {"name": "gpu_checks", "case": "test_a.py", "failed": "RuntimeError: ended with code 1"},
        {"name": "gpu_checks", "case": "tool", "skipped": "not installed"},
        timed("a", cuda=1.0, triton=2.0),
    ]
    (tmp_path / "gpu_checks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench_gpu._print_table(tmp_path, {})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "checks test_a.py: code 1, 2 s, 3 passed, 1 failed, 2 skipped",
        "checks test_a.py: FAILED RuntimeError: ended with code 1",
        "checks tool: skipped: not installed",
        "ops a: cuda 1 ms; 2.00x triton",
    ]
