"""The comparison of recipes that run away, at a handful of updates on the CPU, and the n-step returns it makes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from toy_robot import toy_episodes, toy_meta, write_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import bench_divergence
from benchmarks.divergence import training
from ptr_fast.checkpoint import list_checkpoints, read_checkpoint


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


def test_rewards_of_several_steps_are_summed_up_to_the_end():
    table = SimpleNamespace(
        rewards=np.array([-1, -1, -1, 10, 10, -1, -1], np.float32),
        masks=np.array([1, 1, 1, 0, 0, 1, 1], np.float32),
        next_record=np.array([1, 2, 3, 4, 5, 7, 8]),
        episode=np.array([0, 0, 0, 0, 0, 1, 1]),
    )
    training._sum_rewards(table, 3, 0.5)
    np.testing.assert_allclose(table.rewards, [-1.75, -1.5 + 2.5, -1 + 5, 10, 10, -1.5, -1])
    np.testing.assert_allclose(table.masks, [0.25, 0, 0, 0, 0, 0.5, 1])
    np.testing.assert_array_equal(table.next_record, [3, 4, 4, 4, 5, 8, 8])
