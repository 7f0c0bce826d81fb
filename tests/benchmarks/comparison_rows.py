"""A row of a comparison, as small as tables need it."""


def row(method, seed, outcomes, checkpoint="selected", phase="after", isa="AVX2"):
    return {
        **{"grid": "tiny", "data": "D2", "method": method, "phase": phase, "checkpoint": checkpoint, "mode": "mean"},
        **{"seed": seed, "successes": outcomes.count("1"), "num_trials": len(outcomes), "outcomes": outcomes},
        **{"steps": [30 if ok == "1" else 7 for ok in outcomes], "max_steps": 60, "trial_seed": 0},
        **{"reached": 4, "lifted": 3},
        "environment": {"torch_isa": isa},
    }
