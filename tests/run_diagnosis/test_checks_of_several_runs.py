"""Checks that need more than one run: a clone to be held against, and other seeds."""

import json

from findings import found, held_out, trials


def test_an_actor_that_is_farther_from_the_recorded_actions_than_a_clone(rewritten, trained):
    clone = trained("healthy_clone")
    finding = found(trained("healthy"), clone)["actor_behind_clone"]
    assert "the action error of healthy is 0.16" in finding.seen
    assert "states-cql-clone" in finding.advice
    near = rewritten("healthy", held_out(action_error=0.11), "near")
    assert "actor_behind_clone" not in found(near, clone)
    assert "actor_behind_clone" not in found(trained("alike"), clone)  # of other data
    better, tried_clone = rewritten("healthy", lambda _, row: row, "better"), rewritten("healthy_clone", lambda _, r: r)
    trials(better, "mean", 12)
    trials(tried_clone, "mean", 9)
    assert "actor_behind_clone" not in found(better, tried_clone)
    trials(tried_clone, "mean", 15)
    assert "actor_behind_clone" in found(better, tried_clone)


def with_seed(run, seed):
    record = json.loads((run / "train_config.json").read_text())
    record["config"]["loop"]["seed"] = seed
    (run / "train_config.json").write_text(json.dumps(record))
    return run


def test_seeds_that_disagree(rewritten, trained):
    first = trained("healthy")
    far = with_seed(rewritten("healthy", held_out(score=-0.1), "far"), 1)
    near = with_seed(rewritten("healthy", held_out(score=0.75), "near"), 2)
    finding = found(first, far)["seeds_disagree"]
    assert (
        "differ in their seed alone, and their selection score on held-out episodes lies between -0.1" in finding.seen
    )
    record = json.loads((far / "train_config.json").read_text())
    record["config"]["of_a_later_version"] = None
    (far / "train_config.json").write_text(json.dumps(record))
    assert "seeds_disagree" in found(first, far)
    assert "seeds_disagree" not in found(first, near)
    assert "seeds_disagree" not in found(far, trained("pressed"))  # of other settings
    trials(near, "mean", 2)
    trials(far, "mean", 15)
    assert "2 of 20 trials succeed with one and 15 of 20" in found(far, near)["seeds_disagree"].seen
    trials(near, "mean", 14)
    trials(near, "mean", 1, plan={"start": "wide"})
    trials(near, "search", 1, candidates=4, elites=1)
    trials(far, "search", 15, candidates=32, elites=4)
    seen = found(far, near)["seeds_disagree"].seen
    assert "trials" not in seen, "other starts and other searches are no other seeds"
