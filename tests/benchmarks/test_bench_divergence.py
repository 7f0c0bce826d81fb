"""The comparison of recipes that run away, at a handful of updates on the CPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from toy_robot import toy_episodes, toy_meta, write_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import bench_divergence
from benchmarks.divergence import training
from benchmarks.divergence.variants import GRID
from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_robot.recipes import RECIPES


def test_runs_are_trained_judged_and_become_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "BATCH_SIZE", 4)
    store = write_store(tmp_path / "store", toy_episodes(30, cameras=("image_0",)), toy_meta(("image_0",)))
    out = tmp_path / "out"
    asked = "before/seed1/20000,backup >= return,backup clipped,backup mean,5-step"
    arguments = ["--stores", str(store), "--out", str(out), "--num-steps", "2", "--device", "cpu", "--runs", asked]
    assert bench_divergence.main([*arguments, "--in-flight", "2"]) == 0
    first, *rows = map(json.loads, (out / "divergence.jsonl").read_text().splitlines())
    assert first["demonstrations"]["episodes"] == [27]
    assert len(rows) == 5
    assert all(row["updates"] == 2 and row["curve"]["step"] == [2] and row["alarm"] is None for row in rows)
    targets = {row["name"]: row["curve"]["q/target"][0] for row in rows}
    assert targets["backup >= return"] > targets["before"]  # the returns of demonstrations are above an untrained Q
    assert "before/seed1/2" in capsys.readouterr().out

    assert bench_divergence.main(["--stores", str(store), "--unpack", str(out)]) == 0
    (checkpoint,) = list_checkpoints(out / "runs" / "before-seed1-2")
    assert read_checkpoint(checkpoint).act.mode == "search"

    monkeypatch.setenv("PTR_FAST_BENCH_RECORD", "1")
    monkeypatch.setenv("PTR_FAST_BENCH_OUT", str(tmp_path / "results"))
    assert bench_divergence.main(["--rows", str(out)]) == 0
    recorded = [json.loads(line) for line in (tmp_path / "results" / "divergence.jsonl").read_text().splitlines()]
    assert [row["case"] for row in recorded] == [row["run"] for row in rows]
    assert all(row["environment"] == first["environment"] for row in recorded)
    assert recorded[0]["curves"]["step"] == [2]
    assert recorded[0]["curves"]["q/data"] == [recorded[0]["last"]["q/data"]]


def test_the_recipe_is_one_that_was_measured():
    mended = [run for run in GRID if (run.name, run.num_steps) == ("alpha 1, entropy -8", 20_000)]
    assert len(mended) == 3
    for run in mended:
        assert replace(RECIPES["sim"][1].learner, lr_schedule_steps=run.num_steps) == run.config
