"""A critic with a share of old data of its own: samples that count more or less in its loss, and nothing else."""

import pytest
import torch
from changing_world import SMALL, ptr_fast, read_record, same_result, stopped, weights
from safetensors.torch import load

from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_fast.run_folder import list_checkpoints
from ptr_robot.training.batches import open_batches
from ptr_robot.training.config import FinetuneConfig, LoopConfig
from ptr_robot.training.run_record import RunRecord
from ptr_robot.training.sources import Source


@pytest.fixture(scope="module")
def pretrained(home):
    words = ["pretrain", "smoke-proposals", "--data.stores", home / "store", "--out", home / "proposals", *SMALL]
    assert ptr_fast(*words) == 0
    return home / "proposals"


@pytest.fixture(scope="module")
def finetuned(home, pretrained):
    """Fine-tunes with a share of the critic's own; None: with none."""

    def run(critic_mix):
        out = home / f"critic_mix_{critic_mix}"
        words = ["finetune", "--checkpoint", pretrained, "--target", home / "target", "--num-demos", "3", "--mix", 0.5]
        words += [] if critic_mix is None else ["--critic-mix", critic_mix]
        if not out.exists():
            assert ptr_fast(*words, *SMALL, "--out", out) == 0
        return out

    return run


def weights_of(run, network):
    files = weights(run)
    tensors = load(files["pretrained_model/critic.safetensors"]) | load(files["pretrained_model/model.safetensors"])
    return {name: tensor for name, tensor in tensors.items() if name.split(".")[0] == network}


def test_the_critic_learns_otherwise_and_the_clone_the_same(finetuned):
    plain, own = finetuned(None), finetuned(0.9)
    assert read_record(own)["config"]["critic_mix"] == 0.9
    for network, differs in (("actor", False), ("ema_actor", False), ("critic", True), ("target_critic", True)):
        was, now = weights_of(plain, network), weights_of(own, network)
        assert was.keys() == now.keys() != set()
        assert any(not torch.equal(was[name], now[name]) for name in was) == differs, network


def test_the_share_of_the_batches_changes_nothing(finetuned):
    assert weights(finetuned(0.5)) == weights(finetuned(None))


def test_it_goes_on_from_the_record(finetuned, tmp_path):
    run = stopped(finetuned(0.9), tmp_path / "run")
    assert ptr_fast("resume", run) == 0
    same_result(run, finetuned(0.9))


def test_a_branch_keeps_it_or_takes_another_and_cannot_leave_the_old_data_out(finetuned, tmp_path, capsys):
    start = ["finetune", "--from", list_checkpoints(finetuned(0.9))[0]]
    assert ptr_fast(*start, "--out", tmp_path / "same") == 0
    assert weights(tmp_path / "same") == weights(finetuned(0.9))
    assert ptr_fast(*start, "--critic-mix", 0.5, "--out", tmp_path / "plain") == 0
    said = capsys.readouterr().out
    assert "critic_mix 0.9 -> 0.5" in said
    assert "critic: 0.5 of its loss from prior data: a sample of it counts 1 times" in said
    assert weights(tmp_path / "plain") == weights(finetuned(None))
    for mix, told in (("0", "critic_mix 0.9 needs a mix above 0"), ("1", "mix must lie in [0, 1), got 1.0")):
        with pytest.raises(SystemExit):
            ptr_fast(*start, "--mix", mix, "--out", tmp_path / "none")
        assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


def test_report_and_model_card_tell_it(finetuned, tmp_path):
    assert ptr_fast("report", "--run", finetuned(0.9), "--out", tmp_path / "report.html") == 0
    assert "50% of a batch from prior data, 90% in the critic's loss" in (tmp_path / "report.html").read_text()
    assert ptr_fast("push", "--run", finetuned(0.9), "--out", tmp_path / "card") == 0
    assert (
        "Share of the prior data in a batch: 0.5; in the critic's loss: 0.9."
        in (tmp_path / "card" / "README.md").read_text()
    )


@pytest.mark.parametrize("frames", ["device", "map"])
def test_samples_count_by_where_they_are_from(finetuned, frames):
    record = RunRecord.from_json(read_record(finetuned(0.9)), "record")
    sources = [Source.from_record(source) for source in record.sources]
    loop, traits = LoopConfig(batch_size=6, frames=frames), traits_of(record.learner)
    named = {"is_new": True, "traits": traits, "critic_mix": 0.9}
    data = sources, 0.25, record.spec, record.rewards, loop, torch.device("cpu"), Ranks()
    batches, _ = open_batches(*data, **named)
    new, counts = record.spec.tasks.slot("fold towel"), []
    for step in range(4):
        batch = batches.batch(step)
        expected = torch.where(batch.task_id == new, 0.1 / 0.75, 0.9 / 0.25)
        torch.testing.assert_close(batch.critic_weight, expected, rtol=1e-6, atol=0)
        counts.append(batch.critic_weight.clone())
    batches.close()
    assert float(torch.cat(counts).mean()) == pytest.approx(1.0)


def test_a_clone_that_looks_through_the_critic_would_be_changed_by_it():
    traits_of(CqlProposalsConfig()).check_critic_mix()
    with pytest.raises(ValueError, match="critic_mix: CQL with cloned proposals has no critic with a loss and an enc"):
        traits_of(CqlProposalsConfig(actor_encoder="critic")).check_critic_mix()


def test_a_learner_without_a_clone_beside_its_critic_refuses_it(home, tmp_path, capsys):
    command = ["finetune", "--checkpoint", home / "base", "--target", home / "target", "--critic-mix", "0.9"]
    assert ptr_fast(*command, "--num-demos", "3", "--out", tmp_path / "new", *SMALL) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "critic_mix: CQL has no critic with a loss and an encoder of its own beside a clone; leave it out" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("critic_mix", "mix"), [(1.0, 0.5), (0.0, 0.5), (-0.1, 0.5), (float("nan"), 0.5), (0.9, 0.0)])
def test_shares_that_cannot_be(tmp_path, critic_mix, mix):
    told = r"critic_mix must lie in \(0, 1\), got" if mix else "critic_mix 0.9 needs a mix above 0"
    with pytest.raises(ValueError, match=told):
        FinetuneConfig(target=tmp_path, checkpoint=tmp_path, out=tmp_path, critic_mix=critic_mix, mix=mix)
