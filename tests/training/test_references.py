"""A learner that asks the critic of another run: named when its training begins, and again when it is fine-tuned."""

import pytest
from changing_world import SMALL, ptr_fast, read_record, same_result, stopped


@pytest.fixture(scope="module")
def weighted(home, tmp_path_factory):
    """Cloning weighted by the critic of ``base``, on the same data."""
    out = tmp_path_factory.mktemp("weighted") / "run"
    data = ["--data.stores", home / "store", "--data.exclude-tasks", "turn lever"]
    critic = ["--learner.critic.path", home / "base"]
    assert ptr_fast("pretrain", "smoke-awbc", *data, *critic, "--out", out, *SMALL) == 0
    return out


def test_the_checkpoint_of_the_other_run_is_recorded_and_resumed_with(home, weighted, tmp_path):
    critic = read_record(weighted)["config"]["learner"]["critic"]
    assert critic["path"] == str(home / "base" / "checkpoints" / "000006")
    assert len(critic["weights"]) == 64
    run = stopped(weighted, tmp_path / "run")
    assert ptr_fast("resume", run) == 0
    same_result(run, weighted)


def test_fine_tuning_takes_the_critic_of_a_run_that_knows_the_new_task(home, weighted, tmp_path, capsys):
    words = ["finetune", "--checkpoint", weighted, "--target", home / "target", "--num-demos", "3", *SMALL]
    assert ptr_fast(*words, "--out", tmp_path / "unknown") == 2
    assert "the critic does not know the task 'fold towel'" in capsys.readouterr().err
    for given in ("critic", "critic=", "actor=RUN"):
        assert ptr_fast(*words, "--out", tmp_path / "unknown", "--references", given) == 2
        assert f"expected NAME=RUN, each name once, got '{given}'; this learner refers to critic" in (
            capsys.readouterr().err
        )
    out = tmp_path / "fine"
    assert ptr_fast(*words, "--out", out, "--references", f"critic={home / 'fine'}") == 0
    critic = read_record(out)["config"]["learner"]["critic"]
    assert critic["path"] == str(home / "fine" / "checkpoints" / "000006")
    run = stopped(out, tmp_path / "again")
    assert ptr_fast("resume", run) == 0
    same_result(run, out)


def test_a_learner_that_refers_to_no_run_says_so(home, tmp_path, capsys):
    words = ["finetune", "--checkpoint", home / "base", "--target", home / "target", "--num-demos", "3", *SMALL]
    assert ptr_fast(*words, "--out", tmp_path / "run", "--references", f"critic={home / 'fine'}") == 2
    assert "this learner refers to no other run" in capsys.readouterr().err
