"""What the checks say of runs, and how their logs and trials are made to say something else."""

import json

from ptr_robot.verbs.diagnose import diagnose


def found(*runs):
    return {finding.check: finding for finding in diagnose(runs)}


def held_out(**values):
    """A change of the log: these metrics at every measurement."""

    def change(step, row):
        if any(key.startswith("held_out/") for key in row):
            row = {**row, **{f"held_out/{name}": value for name, value in values.items()}}
        return row

    return change


def trials(run, mode, successes, kitchen="A", **search):
    (run / "rollouts").mkdir(exist_ok=True)
    rows = [{"seed": i, "success": i < successes, "num_steps": 9} for i in range(20)]
    rollout = {"policy": "p", "checkpoint": "c", "mode": mode, "task": "reach", "kitchen": kitchen, "trials": rows}
    name = "-".join(map(str, [mode, *search.values()]))
    (run / "rollouts" / f"{name}.json").write_text(json.dumps(rollout | search))
