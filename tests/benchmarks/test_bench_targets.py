"""The measurement of how fast the value of success reaches the start, at two updates on two episodes."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import bench_targets

pytest.importorskip("metaworld", reason="the toy kitchens need the extra 'sim' (metaworld, mujoco)")


@pytest.mark.slow
def test_rows_of_all_variants(tmp_path, monkeypatch):
    monkeypatch.setenv("PTR_FAST_BENCH_RECORD", "1")
    monkeypatch.setenv("PTR_FAST_BENCH_OUT", str(tmp_path))
    assert bench_targets.main(["--updates", "2", "--episodes", "1"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "targets.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == list(bench_targets.VARIANTS)
    for row in rows:
        assert row["curves"]["step"] == [2]
        assert 0 < row["final gap"] < 35
        assert row["return of success"] < 10
        assert row["curves"]["predicted gap"] == [0.0]
