"""Which episodes are trained on, by outcome and kind, and how often: chosen, recorded, resumed and passed on."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from changing_world import SMALL, episodes, grow, make_store, moved, ptr_fast, read_record, same_result, stopped

from ptr_fast.config import CqlConfig, RewardConfig
from ptr_fast.errors import DataError
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_robot.training import batches as batches_module
from ptr_robot.training.batches import open_batches
from ptr_robot.training.config import DataConfig, FinetuneConfig, LoopConfig
from ptr_robot.training.episode_choice import select_prior, select_target
from ptr_robot.training.matching import make_spec
from ptr_robot.training.weights import parse_weights

LEVER, CARROT, POT = "turn lever", "put carrot on plate", "flip pot upright"


def mixed(count=12, seed=0):
    """Every fourth episode failed, every third is a noisy one's, the others an expert's."""
    return [
        replace(toy, outcome="success" if i % 4 else "failure", kind="expert" if i % 3 else "noisy")
        for i, toy in enumerate(episodes(count, seed))
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    made = {"told": mixed(), "silent": [replace(toy, outcome="unknown") for toy in episodes(6, seed=1)]}
    return {name: make_store(folder / name, toys) for name, toys in made.items()}


def chosen(*paths, **options):
    """Outcome and kind of every episode that has a part, with the options of ``--data``."""
    sources = select_prior(DataConfig(stores=paths, **options), seed=0)
    words = Counter()
    for source in sources:
        table = source.store.episodes
        words.update((table.outcome[i], table.kind[i]) for i in (*source.train, *source.validation))
    return words


def test_outcomes_and_kinds_choose_episodes(stores):
    told, silent = stores["told"], stores["silent"]
    assert chosen(told) == {
        ("failure", "noisy"): 1, ("failure", "expert"): 2, ("success", "noisy"): 3, ("success", "expert"): 6,
    }  # fmt: skip
    assert chosen(told, outcomes=("success",)) == {("success", "noisy"): 3, ("success", "expert"): 6}
    assert chosen(told, outcomes=("success", "failure"), kinds=("noisy",)) == {
        ("failure", "noisy"): 1, ("success", "noisy"): 3,
    }  # fmt: skip
    # A store that does not say has none of these, and none are made up.
    assert chosen(told, silent, outcomes=("success",), kinds=("expert",)) == {("success", "expert"): 6}
    assert chosen(told, silent, outcomes=("unknown",)) == {("unknown", "unknown"): 6}


def test_what_no_store_has_is_one_error_that_lists_what_there_is(stores):
    told, silent = stores["told"], stores["silent"]
    with pytest.raises(
        ValueError, match=r"silent: no episode of outcome 'success'; there are: 'unknown' \(6 episodes\)$"
    ):
        chosen(silent, outcomes=("success",))
    with pytest.raises(
        ValueError, match=r"no episode of kind 'human'; there are: 'expert' \(8 episodes\), 'unknown' \(6"
    ):
        chosen(told, silent, kinds=("expert", "human"))
    with pytest.raises(DataError, match="no episode is left to train on of outcome failure and kind unknown"):
        chosen(told, silent, outcomes=("failure",), kinds=("unknown",))
    with pytest.raises(
        ValueError, match="asked for 2 demonstrations of 'put carrot on plate', the store has 1 of outcome"
    ):
        chosen(told, outcomes=("failure",), num_demos=2)


def test_a_target_is_filtered_too(stores):
    options = dict(path=stores["told"], task=CARROT, domains=(), num_demos=2, seed=0)
    source, _ = select_target(**options, outcomes=("success",), kinds=("noisy",))
    table = source.store.episodes
    taken = [*source.train, *source.validation]
    assert {(table.outcome[i], table.kind[i], table.task[i]) for i in taken} == {("success", "noisy", CARROT)}
    assert len(taken) == 3
    with pytest.raises(ValueError, match="it has 3 of outcome success and kind noisy; use --num-demos 2"):
        select_target(**{**options, "num_demos": 4}, outcomes=("success",), kinds=("noisy",))
    with pytest.raises(ValueError, match=f"no task '{LEVER}' with an episode of kind noisy; it has \\['{CARROT}'\\]"):
        select_target(**{**options, "task": LEVER}, kinds=("noisy",))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (("told",), "expected STORE=FACTOR or task:NAME=FACTOR"),
        (("told=0",), "positive factor, got 'told=0'"),
        (("task:=2",), "expected STORE=FACTOR"),
        (("task:a=2", "task:a=3"), "task 'a' is named twice"),
    ],
)
def test_weights_of_another_form_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(stores=(Path("told"),), weights=weights)


def test_weights_of_what_is_not_trained_on_are_refused(stores):
    with pytest.raises(ValueError, match=r"no store is named 'tolt'; give the path of one of .*told"):
        chosen(stores["told"], weights=("tolt=2",))
    with pytest.raises(ValueError, match="no episode of the task 'turn lever' is trained on; tasks: "):
        chosen(stores["told"], weights=(f"task:{LEVER}=2",), exclude_tasks=(LEVER,))
    with pytest.raises(ValueError, match=r"told is named twice, as 'told' and '.*/told'"):
        chosen(stores["told"], weights=("told=2", f"{stores['told']}=3"))


def test_weights_say_how_often_the_steps_are_drawn(stores, capsys):
    """A run of 300 batches: exact counts, the same from memory as from the files, and those of all ranks together."""
    factors = (f"{stores['silent']}=3", f"task:{LEVER}=0.5", f"task:{CARROT}=2")
    sources = select_prior(DataConfig(stores=tuple(stores.values()), weights=factors), seed=0)
    assert [source.weights for source in sources] == [{CARROT: 2.0, LEVER: 0.5}, {CARROT: 6.0, POT: 3.0, LEVER: 1.5}]
    spec, rewards, cpu = make_spec(sources, [], 0), RewardConfig(), torch.device("cpu")
    seen = {}
    for frames in ("device", "map"):
        loop = LoopConfig(batch_size=6, frames=frames)
        made, _ = open_batches(
            sources, 1.0, spec, rewards, loop, cpu, Ranks(), is_new=True, traits=traits_of(CqlConfig())
        )
        seen[frames] = torch.stack([made.batch(step).state.clone() for step in range(3)])
        made.close()
    assert torch.equal(seen["device"], seen["map"])
    assert "weighted: " in capsys.readouterr().out

    tables = [batches_module.transitions_of(source, spec, rewards, source.train) for source in sources]
    weights = np.concatenate(batches_module._weights(sources, tables))
    tasks = np.array([spec.tasks.names[slot] for table in tables for slot in table.task_id])
    store = np.repeat([0, 1], [len(table) for table in tables])
    expected = np.array([1.0, 3.0])[store] * np.vectorize({LEVER: 0.5, CARROT: 2.0, POT: 1.0}.get)(tasks)
    np.testing.assert_array_equal(weights, expected)


def test_a_weighted_run_is_resumed_fine_tuned_and_branched(tmp_path, capsys):
    """Everything from the record: nothing is weighted or chosen by what the stores hold meanwhile."""
    home, world = tmp_path / "home", tmp_path / "world"
    make_store(home / "store", mixed())
    make_store(home / "target", [replace(e, task="fold towel") for e in mixed(8, seed=3)])
    choice = [
        "--data.outcomes",
        "success",
        "--data.kinds",
        "expert",
        "--data.weights",
        f"{home / 'store'}=2",
        f"task:{LEVER}=0.25",
    ]
    choice += ["--data.validation-share", "0"]
    assert ptr_fast("pretrain", "smoke", "--data.stores", home / "store", "--out", home / "base", *SMALL, *choice) == 0
    record = read_record(home / "base")
    (source,) = record["split"]["sources"]
    assert source["weights"] == {POT: 2.0, LEVER: 0.5}
    assert record["config"]["data"]["weights"] == [f"{home / 'store'}=2.0", f"task:{LEVER}=0.25"]
    assert len(source["train"]) == 6

    shutil.copytree(home / "store", world / "store")
    stopped(home / "base", world / "base")
    grow(world / "store", episodes(3, seed=9))
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 0
    assert "3 episodes are new since the run began and are left out" in capsys.readouterr().out
    same_result(world / "base", home / "base")
    assert read_record(world / "base")["config"]["data"]["weights"][0] == f"{world / 'store'}=2.0"

    more = [
        "--target",
        home / "target",
        "--num-demos",
        "2",
        "--mix",
        "0.5",
        "--outcomes",
        "success",
        "--kinds",
        "noisy",
    ]
    assert ptr_fast("finetune", "--checkpoint", home / "base", "--out", home / "fine", *more, *SMALL) == 0
    old, target = read_record(home / "fine")["split"]["sources"]
    assert (old["weights"], target["weights"]) == (source["weights"], {})
    assert {episode["outcome"] for episode in target["episodes"].values()} == {"success"}
    assert "weighted: 100 % of the prior samples" in capsys.readouterr().out

    out, start = home / "branch", home / "base" / "checkpoints" / "000003"
    assert ptr_fast("pretrain", "--from", start, "--out", out) == 0
    assert "with nothing changed" in capsys.readouterr().out
    assert read_record(out)["split"] == record["split"]
    again = ["--data.weights", f"{home / 'store'}=3", "--data.outcomes", "success", "failure"]
    assert ptr_fast("pretrain", "--from", start, "--out", home / "anew", *again) == 0
    (source,) = read_record(home / "anew")["split"]["sources"]
    assert set(source["weights"].values()) == {3.0}
    assert {episode["outcome"] for episode in source["episodes"].values()} == {"success", "failure"}


def test_without_weights_nothing_is_weighted(stores):
    sources = select_prior(DataConfig(stores=(stores["told"],)), seed=0)
    assert sources[0].weights == {}
    assert select_prior(DataConfig(stores=(stores["told"],), weights=("told=1",)), seed=0)[0].weights == {}
    assert str(parse_weights(["a/b=1e-3"])[0]) == "a/b=0.001"
    assert FinetuneConfig(checkpoint=Path(), target=Path(), out=Path()).outcomes == ()
