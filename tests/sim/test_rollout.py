"""The rollout verb and the trials behind it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.errors import DataError
from ptr_fast.learners import make_learner
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.cql_proposals import CqlProposalsConfig
from ptr_fast.types import CameraSpec
from ptr_robot.acting_options import ActingOptions
from ptr_robot.sim.environment import STATE_SPEC, action_spec, state_spec
from ptr_robot.sim.policies import ExpertSource, RandomSource
from ptr_robot.sim.trials import TrialPlan, run_trials, trial_seed
from ptr_robot.trials.contenders import load_contenders
from ptr_robot.verbs.rollout import Args, main, rollout

PLAN = TrialPlan(task="put block on plate", kitchen="B", image_size=16)


def test_random_fails_and_the_expert_succeeds_on_the_same_starts():
    random = run_trials(RandomSource(), PLAN, 3)
    expert = run_trials(ExpertSource(), PLAN, 3)
    assert [trial.seed for trial in random] == [trial.seed for trial in expert]
    assert not any(trial.success for trial in random)
    assert all(trial.num_steps == PLAN.max_steps for trial in random)
    assert all(trial.success and trial.reached and trial.lifted for trial in expert)
    assert all(trial.num_steps < PLAN.max_steps for trial in expert)


def test_trials_repeat_exactly_and_over_processes():
    def outcome(trials):
        return [(t.index, t.seed, t.success, t.num_steps) for t in trials]

    alone = run_trials(RandomSource(), PLAN, 2, num_workers=1)
    assert outcome(alone) == outcome(run_trials(RandomSource(), PLAN, 2, num_workers=2))


@pytest.mark.parametrize(("frame_delay", "state_delay"), [(0, 0), (2, 0), (0, 1), (2, 2)])
def test_a_policy_sees_frames_and_states_as_old_as_they_are_late(frame_delay, state_delay):
    class Noting(ExpertSource):
        def make(self, env, *how):
            policy, observe = super().make(env, *how), env._observe
            env._observe = lambda: there.append(observe()) or there[-1]

            class Policy:
                def reset(self):
                    policy.reset()

                def act(self, observation, seed=0):
                    seen.append((observation.images["image_0"], observation.state))
                    return policy.act(observation, seed)

            return Policy()

    there, seen = [], []
    plan = replace(PLAN, frame_delay=frame_delay, state_delay=state_delay, max_steps=6)
    (trial,) = run_trials(Noting(), plan, 1)
    assert trial.num_steps == len(seen) == 6
    assert len(there) == 7
    for step, (image, state) in enumerate(seen):
        np.testing.assert_array_equal(image, there[max(step - frame_delay, 0)]["image"])
        np.testing.assert_array_equal(state, there[max(step - state_delay, 0)]["state"])


@pytest.mark.parametrize("name", ["frame_delay", "state_delay"])
def test_a_negative_delay_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must not be negative"):
        replace(PLAN, **{name: -1})


def test_a_log_from_before_there_were_delays_is_gone_on_with(tmp_path):
    log, ran = tmp_path / "trials.jsonl", []
    run_trials(ExpertSource(), PLAN, 1, log=log)
    header, *lines = log.read_text().splitlines()
    old = json.loads(header)
    for name in ("frame_delay", "state_delay", "play", "execute", "ensemble_decay", "cameras"):
        del old["plan"][name]
    log.write_text("\n".join([json.dumps(old), *lines]) + "\n")
    run_trials(CountingExpert(ran), PLAN, 1, log=log)
    assert not ran
    with pytest.raises(ValueError, match=r"trials of another evaluation \(frame_delay 0 instead of 1\)"):
        run_trials(CountingExpert(ran), replace(PLAN, frame_delay=1), 1, log=log)


def test_starts_differ_from_trial_to_trial():
    seeds = {trial_seed(seed, index) for seed in range(3) for index in range(50)}
    assert len(seeds) == 150


def test_a_log_is_gone_on_with(tmp_path):
    log = tmp_path / "trials.jsonl"
    first = run_trials(ExpertSource(), PLAN, 2, log=log)
    lines = log.read_text().splitlines()
    assert len(lines) == 3
    log.write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])  # killed while it wrote the second trial
    ran = []
    again = run_trials(CountingExpert(ran), PLAN, 2, log=log)
    assert len(ran) == 1, "an environment was made once, for the missing trial"
    assert [t.success for t in again] == [t.success for t in first]
    ran.clear()
    run_trials(CountingExpert(ran), PLAN, 2, log=log)
    assert not ran
    kept = log.read_bytes()
    wrong = (
        r"trials\.jsonl: has trials of another evaluation \(policy None instead of 'another'\); name another --out, or"
    )
    with pytest.raises(ValueError, match=wrong):
        run_trials(CountingExpert(ran), PLAN, 1, log=log, about={"policy": "another"})
    assert log.read_bytes() == kept, "nothing is lost"


def test_a_log_that_is_none_or_of_other_trials_by_now_is_not_added_to(tmp_path):
    log = tmp_path / "trials.jsonl"
    plan = replace(PLAN, observe="state", max_steps=3)

    def begin_others(_):
        log.unlink()
        run_trials(RandomSource(), plan, 1, log=log, about={"policy": "another"})

    with pytest.raises(RuntimeError, match=r"trials\.jsonl: another call began other trials here; give each its own"):
        run_trials(RandomSource(), plan, 2, log=log, each=begin_others)
    assert len(log.read_text().splitlines()) == 2, "the others' alone"
    for rows in ("[1]\n", '{"plan": 3}\n', '{"plan": 3}\n{"index": 0}\n', "\xff\n"):
        log.write_text(rows, encoding="latin1")
        run_trials(RandomSource(), plan, 1, log=log)
    with open(log, "a", encoding="utf-8") as file:
        file.write('{"index": 1}\n')
    with pytest.raises(DataError, match=r"trials\.jsonl: not a log of trials \(.*; remove it, and they run again"):
        run_trials(RandomSource(), plan, 2, log=log)


class CountingExpert(ExpertSource):
    """Notes when a policy is made; every instance is its own source."""

    def __init__(self, ran):
        object.__setattr__(self, "ran", ran)

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return False

    def make(self, env, *how):
        self.ran.append(env.kitchen.name)
        return super().make(env, *how)


def test_the_verb_writes_a_result_and_films(tmp_path, capsys):
    out = tmp_path / "expert.json"
    options = {"policy": "expert", "kitchen": "B", "trials": 2, "workers": 1, "video_size": 32, "videos": 1}
    assert main(Args(out=out, video="gif", **options)) == 0
    result = json.loads(out.read_text())
    assert result["policy"] == "expert"
    assert result["successes"] == result["num_trials"] == len(result["trials"]) == 2
    assert result["interval95"] == pytest.approx([0.3424, 1.0], abs=1e-4)
    assert "2/2 succeeded" in capsys.readouterr().out
    import imageio.v3 as imageio

    frames = imageio.imread(tmp_path / "expert" / result["trials"][0]["video"])
    assert frames.shape[1:] == (32, 32, 3)
    assert len(frames) > 10
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    assert not result["trials"][1]["video"]


def test_films_of_a_success_and_of_a_failure(tmp_path):
    out = tmp_path / "expert.json"
    options = {"policy": "expert", "kitchen": "B", "trials": 4, "max_steps": 24, "workers": 1, "video_size": 32}
    filmed = Args(out=out, video="gif", videos=1, videos_of="outcomes", **options)
    outcomes = [trial["success"] for trial in rollout(Args(out=tmp_path / "plain.json", **options))["trials"]]
    assert set(outcomes) == {True, False}, "some starts take longer than 24 decisions"
    wanted = {outcomes.index(True), outcomes.index(False)}

    def films():
        trials = rollout(filmed)["trials"]
        assert [trial["success"] for trial in trials] == outcomes
        assert {trial["index"] for trial in trials if trial["video"]} == wanted
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "expert").iterdir()}

    made = films()
    assert set(made) == {f"trial_{index:03d}.gif" for index in wanted}
    assert films() == made, "nothing is played again"
    gone = f"trial_{min(wanted):03d}.gif"
    (tmp_path / "expert" / gone).unlink()
    assert {name for name, time in films().items() if made[name] != time} == {gone}


def test_the_report_and_the_interval_agree(tmp_path):
    from ptr_robot.report.runs import trial_rows

    out = tmp_path / "random.json"
    rollout(Args(policy="random", kitchen="B", trials=1, workers=1, out=out, max_steps=3, label="dice"))
    (row,) = trial_rows([out])
    assert (row.policy, row.successes, row.num_trials) == ("dice", 0, 1)
    late = tmp_path / "late.json"
    rollout(Args(policy="random", kitchen="B", trials=1, workers=1, out=late, max_steps=3, label="dice", frame_delay=2))
    assert [(row.policy, row.num_trials) for row in trial_rows([out, late])] == [("dice", 1), ("dice, frame 2 late", 1)]


def test_bad_input(tmp_path):
    for options, message in (
        ({"policy": "random", "task": "put blok on plate"}, "did you mean 'put block on plate'"),
        ({"policy": "random", "kitchen": "Z"}, "unknown kitchen 'Z'"),
        ({"policy": "random", "trials": 0}, "trials must be at least 1"),
        (
            {"policy": "random", "acting": ActingOptions(mode="mean")},
            "takes no run, checkpoint, mode, candidates or elites",
        ),
        (
            {"policy": "expert", "acting": ActingOptions(elites=1)},
            "takes no run, checkpoint, mode, candidates or elites",
        ),
        ({}, "name one of --run, --checkpoint"),
        ({"run": tmp_path, "checkpoint": tmp_path}, "name one of --run, --checkpoint"),
        ({"run": tmp_path / "none"}, "no checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            rollout(Args(out=tmp_path / "out.json", **options))


@pytest.mark.parametrize("play", ["receding", "ensemble", "latency"])
def test_a_policy_of_chunks_and_two_cameras_is_tried_in_lock_step(tmp_path, play):
    spec = PolicySpec(
        cameras=tuple(CameraSpec(name=name, height=16, width=16) for name in ("front", "wrist")),
        state=STATE_SPEC,
        action=action_spec(4),
        tasks=TaskTable(names=(PLAN.task,), num_slots=2),
        control_hz=20.0,
    )
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    learner = make_learner(BcConfig(encoder=encoder, hidden_dims=(16,), num_actions=4, num_observations=2), spec)
    checkpoint = save_checkpoint(tmp_path / "run", 1, learner, spec, ActConfig(), {"split": {"sources": []}})
    out, late = tmp_path / "out.json", 1 if play == "latency" else 0
    options = {"kitchen": "B", "trials": 1, "workers": 1, "max_steps": 6, "frame_delay": late}
    assert main(Args(checkpoint=checkpoint, out=out, play=play, **options)) == 0
    result = json.loads(out.read_text())
    assert result["plan"]["cameras"] == ["front", "wrist"]
    assert (result["plan"]["play"], result["mean_steps"]) == (play, 6)


def states_alone() -> PolicySpec:
    """What a policy without cameras sees and does."""
    return PolicySpec(
        cameras=(),
        state=state_spec("state"),
        action=action_spec(4),
        tasks=TaskTable(names=(PLAN.task,), num_slots=2),
        control_hz=20.0,
    )


def test_a_search_tells_how_many_proposals_it_had_and_how_many_it_averaged(tmp_path):
    config = CqlProposalsConfig(encoder=EncoderConfig(name="none"), hidden_dims=(16,))
    spec, act = states_alone(), ActConfig(mode="search", num_candidates=6, num_elites=2)
    checkpoint = save_checkpoint(tmp_path / "run", 1, make_learner(config, spec), spec, act, {"split": {"sources": []}})
    for mode, asked, told in (
        ("", (0, 0), {"candidates": 6, "elites": 2}),
        ("", (4, 1), {"candidates": 4, "elites": 1}),
        ("", (0, 5), {"candidates": 6, "elites": 5}),
        ("sample", (0, 0), {}),
    ):
        out, (candidates, elites) = tmp_path / f"{mode}{asked}.json", asked
        acting = ActingOptions(mode=mode, candidates=candidates, elites=elites)
        assert main(Args(checkpoint=checkpoint, trials=1, workers=1, max_steps=2, out=out, acting=acting)) == 0
        result = json.loads(out.read_text())
        assert {name: result[name] for name in ("candidates", "elites") if name in result} == told
        (contender,) = load_contenders([checkpoint], ["one"], acting, "cpu", "eager")  # the same on a robot
        assert {name: value for name, value in contender.about.items() if name in ("candidates", "elites")} == told
    for wrong, told in (
        ({"candidates": 4, "elites": 5}, r"num_elites must lie in 1\.\."),
        ({"mode": "mean", "elites": 1}, "are of mode search"),
    ):
        with pytest.raises(ValueError, match=told):
            main(Args(checkpoint=checkpoint, trials=1, out=tmp_path / "no.json", acting=ActingOptions(**wrong)))


def test_trials_of_another_way_to_search_do_not_replace_each_other(tmp_path):
    from ptr_robot.report.runs import trial_rows
    from ptr_robot.report.tried_checkpoints import trial_counts

    config = CqlProposalsConfig(encoder=EncoderConfig(name="none"), hidden_dims=(16,))
    spec, act = states_alone(), ActConfig(mode="search", num_candidates=6, num_elites=2)
    checkpoint = save_checkpoint(tmp_path / "run", 1, make_learner(config, spec), spec, act, {"split": {"sources": []}})
    for ways in ({}, {"candidates": 4}, {"candidates": 4, "elites": 1}):
        assert main(Args(checkpoint=checkpoint, trials=1, workers=1, max_steps=2, acting=ActingOptions(**ways))) == 0
    files = sorted((tmp_path / "run" / "rollouts").glob("*.json"))
    ways = ["2_decisions-best_of_4", "2_decisions-mean_of_the_best_2_of_4", "2_decisions"]
    assert [file.stem.partition("seed_0-")[2] for file in files] == ways
    told = ["best of 4", "mean of the best 2 of 4", "mean of the best 2 of 6"]
    assert [row.policy.partition(", ")[2] for row in trial_rows(files)] == told
    assert [row.policy for row in trial_rows(files[:1])] == ["run"]
    assert trial_counts(files) == {
        (checkpoint, ("search", f", {way}, easy starts, 2 decisions")): (0, 1) for way in told
    }


def test_trials_from_other_starts_or_with_another_limit_stand_for_themselves(tmp_path):
    from ptr_robot.report.runs import trial_rows
    from ptr_robot.report.tried_checkpoints import trial_counts

    learner = make_learner(BcConfig(encoder=EncoderConfig(name="none"), hidden_dims=(16,)), states_alone())
    checkpoint = save_checkpoint(tmp_path / "run", 1, learner, states_alone(), ActConfig(), {"split": {"sources": []}})
    for where in (
        {"max_steps": 2},
        {"max_steps": 3},
        {"max_steps": 2, "start": "far"},
        {"max_steps": 2, "distractors": 1},
    ):
        assert main(Args(checkpoint=checkpoint, trials=1, workers=1, **where)) == 0
    files = sorted((tmp_path / "run" / "rollouts").glob("*.json"))
    assert len(files) == 4
    told = {row.policy.partition(", ")[2] for row in trial_rows(files)}
    assert told == {
        "easy starts, 2 decisions",
        "easy starts, 3 decisions",
        "far starts, 2 decisions",
        "easy starts, 1 distractors, 2 decisions",
    }
    assert trial_counts(files) == {(checkpoint, ("mean", f", {where}")): (0, 1) for where in told}
    assert [row.policy for row in trial_rows(files[:1])] == ["run"]


def test_trials_of_another_way_to_play_do_not_replace_each_other(tmp_path):
    from ptr_robot.report.runs import trial_rows

    spec = states_alone()
    learner = make_learner(BcConfig(encoder=EncoderConfig(name="none"), hidden_dims=(16,), num_actions=4), spec)
    checkpoint = save_checkpoint(tmp_path / "run", 1, learner, spec, ActConfig(), {"split": {"sources": []}})
    for ways in ({}, {"play": "ensemble"}, {"execute": 2}):
        assert main(Args(checkpoint=checkpoint, trials=1, workers=1, max_steps=2, **ways)) == 0
    files = sorted((tmp_path / "run" / "rollouts").glob("*.json"))
    assert [file.stem.partition("seed_0")[2] for file in files] == [
        "-2_decisions-ensemble",
        "-2_decisions-execute_2",
        "-2_decisions",
    ]
    assert len(trial_rows(files)) == 3
