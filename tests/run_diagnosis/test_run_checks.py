"""Every check finds its illness, in a run that has it, and finds nothing in a healthy one."""

import json

import pytest
import toy_reach
from findings import found, held_out

from ptr_fast.errors import DataError
from ptr_robot.cli import main as cli
from ptr_robot.verbs.diagnose import diagnose


@pytest.mark.parametrize("name", ["healthy", "healthy_clone"])
def test_a_healthy_run_has_no_finding(trained, name):
    assert found(trained(name)) == {}


@pytest.mark.parametrize(
    ("name", "check", "level", "words", "advice"),
    [
        ("short_sighted", "discount_and_length", "warning", "at discount 0.8", "--learner.discount 0.9"),
        (
            "slow",
            "end_reached_start",
            "error",
            "at step 100",
            "--rewards.num-steps 5 and --rewards.lower-bound-returns",
        ),
        ("pressed", "conservative_term", "warning", "random actions are pressed", "--learner.cql-alpha 2"),
        ("wild", "value_range", "warning", "above the largest return, 10", "--learner.cql-alpha 1"),
        ("wild", "foreign_actions", "warning", "the policy's own actions are valued", "--learner.cql-alpha 1"),
        ("wild", "actions_at_bounds", "warning", "of the policy's action dimensions", "--learner.cql-alpha 1"),
        ("hot", "temperature", "warning", "the temperature rose from 1", "--learner.target-entropy -0.62"),
        ("lazy_actor", "actor_behind", "warning", "above the policy's own mean", "--mode search"),
        ("by_heart", "overfit", "warning", "held-out metrics are worse again: action error", "--learner.dropout 0.1"),
        ("unripe_clone", "underfit", "warning", "in the last quarter", "--num-steps 300"),
        ("alike", "use_cloning", "note", "none of the 48 episodes failed", "behaviour cloning"),
        ("alike_and_slow", "use_cloning", "note", "none of the 16 episodes failed, they take 6", "behaviour cloning"),
    ],
)
def test_a_run_that_was_trained_ill(trained, name, check, level, words, advice):
    finding = found(trained(name))[check]
    assert finding.level == level
    assert words in finding.seen
    assert advice in finding.advice
    assert finding.why


def test_illnesses_of_other_runs_are_not_seen_in_these(trained):
    assert set(found(trained("by_heart"))) == {"overfit"}
    assert set(found(trained("unripe_clone"))) == {"underfit"}
    assert set(found(trained("lazy_actor"))) == {"actor_behind"}
    assert "use_cloning" not in found(trained("no_failure")), "people go several ways, also where nobody fails"
    assert set(found(trained("wild"))) == {"value_range", "foreign_actions", "actions_at_bounds"}


def test_demonstrations_that_undid_what_pre_training_knew(trained, table, tmp_path, capsys):
    """Five of them at thirty times the rate, and nothing of the old data."""
    out = tmp_path / "fine"
    words = ["--target", table / "few", "--mix", "0", "--lr-scale", "30", "--num-steps", "60", "--num-demos", "5"]
    words += ["--checkpoint", trained("healthy"), "--no-stop-on-divergence", "--num-threads", "1", "--out", out]
    assert cli([str(word) for word in ["finetune", *words]]) == 0
    assert "unlearned" not in found(out)  # nothing was picked yet
    assert cli(["select", "--run", str(out)]) == 0
    assert "picked step 0 (what fine-tuning began with): " in " ".join(capsys.readouterr().out.split())
    finding = found(out)["unlearned"]
    assert finding.level == "note"
    assert "picked what fine-tuning began with: selection score" in finding.seen
    assert "at step 0" in finding.seen
    assert "--lr-scale" in finding.advice
    selection = json.loads((out / "selection.json").read_text())

    def finds_it(**changes):
        (out / "selection.json").write_text(json.dumps({**selection, **changes}))
        return "unlearned" in found(out)

    start = [entry for entry in selection["ranking"] if entry["step"] == 0]
    assert finds_it()
    assert not finds_it(selected=60)
    assert not finds_it(ranking=start)  # there was no choice, and there is a newer checkpoint


def sink(step, row):
    return {**row, "q/data": 2.0 - 0.2 * step, "q/policy": -8.0 - 0.2 * step, "temperature/value": 4.0}


def test_values_below_the_smallest_return_are_an_error_with_what_to_set(rewritten):
    """As the pilot saw it: -44 with a floor of -25, here -58 with -33."""
    finding = found(rewritten("healthy", sink))["value_range"]
    assert finding.level == "error"
    assert "below the smallest return there can be, -33.33 (first at step 180)" in finding.seen
    assert "--learner.target-entropy -4" in finding.advice


def test_targets_that_the_policy_pulls_down(rewritten):
    change = held_out(return_bias=-9.0, policy_gap=3.0)
    finding = found(rewritten("healthy", change))["targets_pulled_down"]
    assert "9 below the recorded returns at step 300" in finding.seen
    assert "states-proposals" in finding.advice
    assert "targets_pulled_down" not in found(rewritten("healthy", held_out(return_bias=-9.0, policy_gap=0.1), "other"))


@pytest.mark.parametrize(
    ("values", "level"),
    [({"random_gap": -0.5, "preference": 0.4}, "error"), ({"random_gap": 0.1, "preference": 0.5}, "warning")],
)
def test_random_actions_above_the_recorded_ones(rewritten, values, level):
    finding = found(rewritten("healthy", held_out(**values)))["foreign_actions"]
    assert finding.level == level
    assert "--learner.cql-alpha 5" in finding.advice


def test_a_run_that_has_hardly_begun_is_told_to_go_on_and_not_two_opposite_settings(table, tmp_path):
    run = toy_reach.train(table / "people", tmp_path / "run", 4)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    change = held_out(random_gap=-0.001, preference=0.5, early_rise=0.0)
    (run / "metrics.jsonl").write_text("".join(json.dumps(change(row["step"], row)) + "\n" for row in rows))
    told = found(run)
    assert {"end_reached_start", "foreign_actions"} <= set(told)
    assert "more updates first" in told["foreign_actions"].advice
    assert "cql-alpha" not in told["foreign_actions"].advice


def test_a_temperature_that_went_to_nothing(rewritten):
    finding = found(rewritten("healthy", lambda _, row: {**row, "temperature/value": 1e-4}))["temperature"]
    assert "fell from 1 to 0.0001" in finding.seen
    assert "--learner.target-entropy -1 (it is -2 nats)" in finding.advice


def test_rates_at_zero_while_the_run_went_on(rewritten):
    def change(step, row):
        return {key: 0.0 if key.startswith("lr/") and step > 100 else value for key, value in row.items()}

    finding = found(rewritten("healthy", change))["rate_at_zero"]
    assert "at zero since step 110, and the run went on to step 300" in finding.seen
    assert "--learner.lr-schedule-steps 300" in finding.advice


def test_numbers_that_are_not_finite_come_first(rewritten):
    change = lambda step, row: {**row, "train/critic_loss": float("nan")} if step >= 50 else row  # noqa: E731
    first = diagnose((rewritten("healthy", change),))[0]
    assert (first.check, first.level) == ("broken_numbers", "error")
    assert first.seen == "train/critic_loss is not finite at step 50"
    assert "--learner.critic-lr" in first.advice


def test_a_critics_run_that_overfits_needs_both_errors_to_rise(rewritten):
    def rise(*names):
        return lambda step, row: {
            key: 1.0 + step / 100 if key in [f"held_out/{name}" for name in names] else value
            for key, value in row.items()
        }

    finding = found(rewritten("healthy", rise("bellman_error", "action_error")))["overfit"]
    assert "action error 1.38 at step 25 and 4" in finding.seen
    assert "overfit" not in found(rewritten("healthy", rise("action_error"), "actor moved on"))
    assert "overfit" not in found(rewritten("healthy", rise("bellman_error"), "values spread"))


def worsening(log_prob):
    """As fine-tuning with an even mix did in the kitchens: 6.9, 5.6, 4.2 nats while the Bellman error rose."""

    def change(step, row):
        worse = {"log_prob": 6.9 - log_prob * step / 100, "bellman_error": 2.0 + step / 100, "action_error": 0.1}
        return held_out(**worse)(step, row)

    return change


def test_a_critic_with_proposals_that_learns_by_heart(rewritten):
    finding = found(rewritten("healthy_proposals", worsening(0.9)))["overfit"]
    assert "log-probability 6.56 at step 25 and 4.2" in finding.seen
    assert "Bellman error" in finding.seen
    assert "--mix" not in finding.advice  # there is no other data
    assert "overfit" not in found(rewritten("healthy_proposals", worsening(0.1), "hardly"))
    assert "overfit" not in found(rewritten("healthy", worsening(0.9), "an actor that leaves the data"))


OF_CRITIC = "--critic-mix 0.9, a larger share of the old data in the critic's loss"


@pytest.mark.parametrize(
    ("mix", "advised"),
    [
        (["0"], "--mix 0.9, a larger share of the old data"),
        (["0.5"], OF_CRITIC),
        (["0.9", "--critic-mix", "0.5"], OF_CRITIC),
        (["0.5", "--critic-mix", "0.9"], "--mix 0.9, a larger share of the old data"),
        (["0.9"], None),
    ],
)
def test_demonstrations_learned_by_heart_need_more_old_data(trained, rewritten, table, tmp_path, mix, advised):
    out = tmp_path / "fine"
    words = ["--target", table / "few", "--mix", *mix, "--num-steps", "300", "--num-demos", "3", "--batch-size", "4"]
    words += ["--checkpoint", trained("healthy_proposals"), "--evaluate-every", "50", "--num-threads", "1"]
    assert cli([str(word) for word in ["finetune", *words, "--no-stop-on-divergence", "--out", out]]) == 0
    finding = found(rewritten(out, worsening(0.9)))["overfit"]
    assert [way for way in finding.advice.split("; ") if "share of the old data" in way] == [advised] * bool(advised)
    moved = table / "few"
    moved.rename(table / "elsewhere")
    try:
        assert found(tmp_path / "rewritten")["overfit"].advice == finding.advice
    finally:
        (table / "elsewhere").rename(moved)


def test_values_that_are_missing_at_every_other_measurement_are_passed_over(rewritten):
    def change(step, row):
        value = float("nan") if step % 50 else 1.0 + step / 100
        return {key: value if key == "held_out/action_error" else old for key, old in row.items()}

    assert set(found(rewritten("healthy", change))) == {"broken_numbers"}


def test_values_out_of_range_that_held_out_episodes_alone_tell(rewritten):
    def change(step, row):
        return {**held_out(q_data=-900.0)(step, row), "q/data": float("nan")}

    finding = found(rewritten("healthy", change))["value_range"]
    assert "-900 at step 300" in finding.seen
    assert "(first at step 300)" in finding.seen


def test_a_folder_that_is_no_step_says_nothing(rewritten):
    run = rewritten("healthy", lambda _, row: row)
    for name in ("diverged", "checkpoints"):
        (run / name / "12x").mkdir(parents=True)
    assert found(run) == {}


@pytest.mark.parametrize("split", [3, "x", {"sources": 3}, [3], [{}], {"sources": [{}]}, {"mix": "0.5"}, {"mix": None}])
def test_a_record_with_a_wrong_split_is_named(rewritten, split):
    run = rewritten("healthy", lambda _, row: row)
    record = json.loads((run / "train_config.json").read_text())
    (run / "train_config.json").write_text(json.dumps({**record, "split": split}))
    with pytest.raises(DataError, match=r"train_config\.json: record\.split"):
        diagnose((run,))


def test_a_run_without_curves_is_evaluated_and_one_without_anything_says_so(table, trained, rewritten, tmp_path):
    out = toy_reach.train(table / "people", tmp_path / "run", 20, "--evaluate-every", "0")
    evaluated = found(out)
    assert "measured" not in evaluated
    assert evaluated["end_reached_start"].numbers["early_rise"] < 0.25
    assert (out / "evaluation" / "000020.json").is_file()
    bare = rewritten("healthy", lambda _, row: {k: v for k, v in row.items() if not k.startswith("held_out/")})
    assert "--evaluate-every" in found(bare)["measured"].seen


def test_other_learners_are_diagnosed_by_what_they_say_of_themselves(table, tmp_path):
    options = ["--learner.discount", "0.8", "--learner.critic-head", "plain"]
    proposals = toy_reach.train(table / "people", tmp_path / "proposals", 10, *options, recipe="smoke-proposals")
    assert "discount_and_length" in found(proposals)
    images_alone = tmp_path / "images"
    words = ["pretrain", "smoke-contrast", "--data.stores", table / "people", "--out", images_alone, "--num-steps", "2"]
    assert cli([str(word) for word in words]) == 0
    assert found(images_alone) == {}  # it does not act: there is nothing to measure
    mixture = toy_reach.train(table / "people", tmp_path / "mixture", 10, recipe="smoke-mixture")
    assert not any(finding.level == "error" for finding in diagnose((mixture,)))


def test_the_command_prints_a_table_or_json_and_fails_on_errors(trained, capsys):
    assert cli(["diagnose", str(trained("healthy"))]) == 0
    assert "0 errors, 0 warnings, 0 notes" in capsys.readouterr().out
    slow = trained("slow")
    assert cli(["diagnose", str(slow)]) == 1
    told = capsys.readouterr().out
    assert "end_reached_start" in told
    assert "do:  --rewards.num-steps 5" in told
    assert cli(["diagnose", str(slow), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["runs"] == [str(slow)]
    assert not report["passed"]
    assert {"level", "check", "seen", "why", "advice", "numbers"} <= set(report["findings"][0])
    assert cli(["diagnose", str(trained("wild"))]) == 0
    assert cli(["diagnose", str(trained("wild")), "--strict"]) == 1


def test_what_is_no_run_is_one_clear_line(table, tmp_path, capsys):
    for path, words in ((tmp_path / "none", "no such run folder"), (table / "people", "not a run folder")):
        assert cli(["diagnose", str(path)]) == 2
        assert words in capsys.readouterr().err


def test_a_run_whose_store_has_moved_is_diagnosed_by_what_it_logged(rewritten, table, tmp_path):
    run = rewritten("short_sighted", lambda _, row: row)
    record = json.loads((run / "train_config.json").read_text())
    record["split"]["sources"][0]["store"] = str(tmp_path / "gone")
    (run / "train_config.json").write_text(json.dumps(record))
    assert "not a store" in found(run)["measured"].seen
    assert "discount_and_length" not in found(run)
    from ptr_robot.training.store_places import StorePlaces

    places = StorePlaces.parse([f"{tmp_path / 'gone'}={table / 'people'}"])
    assert "discount_and_length" in {finding.check for finding in diagnose((run,), places)}
