"""What critics know, from evaluations: only critics, and only before any demonstration of the new task."""

from benchmarks import critics
from ptr_robot.comparison.plan import make_plan

GRID = """
scale: states
methods: [bc, cql-n]
data:
  old: {prior: [--kitchens, B]}
  new: {prior: [--kitchens, A], target: [--kitchens, H], kitchen: H}
"""


def evaluation(**metrics):
    def episode(outcome, q):
        curves = {"step": list(range(20)), "q": [q] * 20, "q_random": [q - 1.0] * 18 + [q - 9.0] * 2}
        return {"episode_id": outcome, "outcome": outcome, "num_steps": 20, "q_mean": q, "curves": curves}

    return {"metrics": metrics, "episodes": [episode("success", 1.0), episode("success", 2.0), episode("failure", 0.0)]}


def test_a_row_per_critic_that_has_seen_no_demonstration(tmp_path, monkeypatch):
    (tmp_path / "grid.yaml").write_text(GRID)
    grid = str(tmp_path / "grid.yaml")
    for stage in make_plan(critics.load_grid(grid), tmp_path / "out").stages:
        if stage.is_training:
            (stage.makes.parent / "checkpoints" / "006000").mkdir(parents=True)

    def evaluated(checkpoint):
        assert "-pretrain-" in checkpoint.parts[-3]
        return evaluation(action_error=0.1, **({"score": 0.5} if "cql-n" in checkpoint.parts[-3] else {}))

    monkeypatch.setattr(critics, "evaluated", evaluated)
    old, new = critics.rows_of(grid, tmp_path / "out")
    assert [old["case"], new["case"]] == [f"grid, {name}, CQL, 5-step, alpha 1, seed 0" for name in ("old", "new")]
    for row in (old, new):
        assert (row["AUC"], row["good episodes"], row["failed"]) == (1.0, 2, 1)
        assert row["tenth"]["10"] > 1 > row["tenth"]["1"] >= 0
