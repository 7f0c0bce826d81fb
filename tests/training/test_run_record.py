"""A run is what its record says: whatever happens to its stores while it is stopped, it goes on as if nothing had."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from changing_world import (
    SMALL,
    as_version_1,
    episodes,
    grow,
    make_store,
    moved,
    new_task,
    ptr_fast,
    read_record,
    same_result,
    stopped,
    write_record,
)

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.config import ActConfig, PolicySpec, TaskTable, from_dict, to_dict
from ptr_fast.data.store import EpisodeStore
from ptr_fast.run_folder import weights_of
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.training import loop as train_module
from ptr_robot.training.ancestry import ancestors_of, trained_on
from ptr_robot.training.config import DataConfig
from ptr_robot.training.run_record import EpisodeRecord, RunRecord, SourceRecord

KEPT, PLACE, TOLD, PROGRAM = "kept", "where it lies now", "told to resume", "the program that goes on"
RULES = {  # every field of a record, and what becomes of it when the run goes on
    "record_version": KEPT,
    "verb": KEPT,
    "config.out": PLACE,
    "config.data.stores": PLACE,
    "config.target": PLACE,
    "config.data": KEPT,
    "config.joint": KEPT,
    "config.learner": KEPT,
    "config.rewards": KEPT,
    "config.act": KEPT,
    "config.act_mode": KEPT,
    "config.act_candidates": KEPT,
    "config.act_elites": KEPT,
    "config.num_task_slots": KEPT,
    "config.loop.num_steps": TOLD,
    "config.loop": KEPT,
    "config.checkpoint": KEPT,
    "config.task": KEPT,
    "config.domains": KEPT,
    "config.outcomes": KEPT,
    "config.kinds": KEPT,
    "config.num_demos": KEPT,
    "config.mix": KEPT,
    "config.store": KEPT,
    "config.camera_map": KEPT,
    "config.critic_mix": KEPT,
    "config.lr_scale": KEPT,
    "config.references": KEPT,
    "config.lr_schedule": KEPT,
    "spec": KEPT,
    "split.mix": KEPT,
    "split.sources.role": KEPT,
    "split.sources.store": PLACE,
    "split.sources.fingerprint": KEPT,
    "split.sources.train": KEPT,
    "split.sources.validation": KEPT,
    "split.sources.others": KEPT,
    "split.sources.weights": KEPT,
    "split.sources.cameras": KEPT,
    "split.sources.episodes": KEPT,
    "parent": KEPT,
    "ancestors": KEPT,
    "changes": TOLD,
    "wandb": KEPT,
    "familiarity": KEPT,
    "versions": PROGRAM,
}


def leaves(value, where=""):
    """(dotted name, value) of every innermost field; lists of objects count as one object each."""
    if isinstance(value, dict) and value and where not in ("split.sources.episodes",):
        for name, inner in value.items():
            yield from leaves(inner, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value) and where != "ancestors":
        for item in value:
            yield from leaves(item, where)
    else:
        yield where, value


def rule_of(name: str) -> str:
    """The rule of the longest name in RULES that the field lies at or below."""
    found = [key for key in RULES if name == key or name.startswith(key + ".")]
    assert found, f"the record has a field without a rule: {name}"
    return RULES[max(found, key=len)]


@pytest.mark.parametrize("name", ["base", "fine"])
def test_field_by_field_in_a_changed_world(home, world, name, monkeypatch, capsys):
    """Both stores grew by known tasks and a new one, and their bounds with them; all moved; another working folder."""
    action = EpisodeStore.open(world / "store").meta.action
    wider = replace(action, low=tuple(2 * v for v in action.low), high=tuple(2 * v for v in action.high))
    for store in ("store", "target"):
        grow(world / store, [*new_task(), *episodes(2, seed=9)], action=wider)
    monkeypatch.chdir(world)
    seen = {}
    monkeypatch.setattr(train_module, "open_batches", _spy(seen, train_module.open_batches))
    assert ptr_fast("resume", name, *moved(home, world)) == 0
    said = capsys.readouterr().out
    assert f"prior data {world}/store: 5 episodes are new since the run began and are left out: 'toy_7_000'" in said
    same_result(world / name, home / name)

    before, after = ([*leaves(read_record(place / name))] for place in (home, world))
    assert [key for key, _ in before] == [key for key, _ in after]
    for (key, was), (_, now) in zip(before, after, strict=True):
        rule = rule_of(key)
        if rule == PLACE:
            expected = [str(p).replace(str(home), str(world)) for p in ([was] if isinstance(was, str) else was)]
            assert ([now] if isinstance(was, str) else now) == expected, key
        else:
            assert now == was, key
    record = RunRecord.from_json(read_record(world / name), name)
    assert seen["spec"] == record.spec == read_checkpoint(home / name).spec
    assert seen["mix"] == record.mix == (0.5 if name == "fine" else 1.0)
    assert seen["rewards"] == record.rewards
    assert seen["episodes"] == [(s.role, s.train, s.validation) for s in record.sources]


def _spy(seen, open_batches):
    def spy(sources, mix, spec, rewards, *more, **named):
        ids = [[s.store.episodes.episode_id[i] for i in e] for s in sources for e in (s.train, s.validation)]
        pairs = zip(ids[::2], ids[1::2], strict=True)
        chosen = [(s.role, tuple(t), tuple(v)) for s, (t, v) in zip(sources, pairs, strict=True)]
        seen.update(mix=mix, spec=spec, rewards=rewards, episodes=chosen)
        return open_batches(sources, mix, spec, rewards, *more, **named)

    return spy


def test_every_field_of_the_record_has_a_rule(home):
    for name in ("base", "fine"):
        for key, _ in leaves(read_record(home / name)):
            rule_of(key)
    record = read_record(home / "fine")
    assert set(record) == {"record_version", "verb", "config", "spec", "split", "parent", "ancestors", "changes",
                           "wandb", "familiarity", "versions"}  # fmt: skip
    assert set(record["split"]["sources"][0]) == {field.name for field in fields(SourceRecord)}
    some = next(iter(record["split"]["sources"][0]["episodes"].values()))
    assert set(some) == {field.name for field in fields(EpisodeRecord)}
    record["split"]["sources"][0]["brand_new"] = 1
    with pytest.raises(AssertionError, match=r"without a rule: split\.sources\.brand_new"):
        [rule_of(key) for key, _ in leaves(record)]


def test_fine_tuning_keeps_what_it_begins_with_and_goes_on_from_it(home, tmp_path):
    start = list_checkpoints(home / "fine")[0]
    assert start.name == "000000"
    assert weights_of(start) == weights_of(list_checkpoints(home / "base")[-1])
    assert read_checkpoint(start).spec == read_checkpoint(home / "fine").spec != read_checkpoint(home / "base").spec
    run = stopped(home / "fine", tmp_path / "fine", at=0)
    (run / "metrics.jsonl").unlink()
    assert ptr_fast("resume", run) == 0
    same_result(run, home / "fine")


def test_what_fine_tuning_begins_with_has_the_old_data_of_its_parent_alone(home, tmp_path):
    for step, stores in (("000000", ["store", "target"]), ("000003", ["store", "target", "target"])):
        out = tmp_path / step
        start = ["--checkpoint", home / "fine" / "checkpoints" / step, "--target", home / "target"]
        assert ptr_fast("finetune", *start, "--num-demos", "2", "--out", out, *SMALL) == 0
        sources = read_record(out)["split"]["sources"]
        assert [Path(source["store"]).name for source in sources] == stores
        assert [source["role"] for source in sources] == [*["prior"] * (len(stores) - 1), "target"]


def test_fine_tuning_can_act_otherwise(home, tmp_path, capsys):
    act = ["--act-mode", "search", "--act-candidates", "4", "--act-elites", "2"]
    start = ["--checkpoint", home / "base", "--target", home / "target", "--num-demos", "3"]
    assert ptr_fast("finetune", *start, *act, "--out", tmp_path / "four", *SMALL) == 0
    info = read_checkpoint(tmp_path / "four")
    assert info.act == ActConfig(mode="search", num_candidates=4, num_elites=2)
    for mode, elites, told in (
        ("search", "5", "must lie in 1..num_candidates (4), got 5"),
        ("mean", "4", "of mode search"),
    ):
        act = ["--act-mode", mode, "--act-candidates", "4", "--act-elites", elites]
        assert ptr_fast("finetune", *start, *act, "--out", tmp_path / "no") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_what_a_killed_process_left_of_checkpoints_is_removed_when_the_run_goes_on(home, tmp_path):
    run = stopped(home / "base", tmp_path / "base")
    for left in (run / "checkpoints" / ".000006.77.tmp", run / "diverged" / ".000005.77.removed"):
        shutil.copytree(run / "checkpoints" / "000003", left)
    assert ptr_fast("resume", run) == 0
    same_result(run, home / "base")
    assert not [*run.glob("*/.0*")]


def test_a_store_written_anew_in_another_order_trains_the_same(home, world):
    shutil.rmtree(world / "store")
    make_store(world / "store", [*new_task(1), *episodes()[::-1]])
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 0
    same_result(world / "base", home / "base")


def _changed(what: str) -> list:
    toys = {e.episode_id: e for e in episodes()}
    some = toys["toy_0_003"]
    if what == "gone":
        del toys["toy_0_003"]
    elif what == "images":
        toys["toy_0_003"] = replace(some, images={"image_0": 255 - some.images["image_0"]})
    elif what == "actions":
        toys["toy_0_003"] = replace(some, actions=some.actions * 0.5)
    elif what == "states":
        toys["toy_0_003"] = replace(some, states=some.states + np.float32(0.01))
    elif what == "shorter":
        images = {"image_0": some.images["image_0"][:-1]}
        toys["toy_0_003"] = replace(some, states=some.states[:-1], actions=some.actions[:-1], images=images)
    elif what == "task":
        toys["toy_0_003"] = replace(some, task="flip pot upright")
    elif what == "outcome":
        toys["toy_0_003"] = replace(some, outcome="failure")
    return list(toys.values())


CHANGES = {
    "gone": "1 of 8 episodes that the record of the run names are gone: 'toy_0_003'",
    "images": "'toy_0_003' (other actions or frames: its digest differs)",
    "actions": "'toy_0_003' (other actions or frames: its digest differs)",
    "shorter": "'toy_0_003' (other actions or frames: its digest differs)",
    "states": "'toy_0_003' (other states: their checksum differs)",
    "task": "'toy_0_003' (task 'put carrot on plate' became 'flip pot upright')",
    "outcome": "'toy_0_003' (outcome 'success' became 'failure')",
}


@pytest.mark.parametrize("what", list(CHANGES))
@pytest.mark.parametrize("run", ["base", "fine"])
def test_episodes_that_are_gone_or_others_are_named(home, world, capsys, what, run):
    before = read_record(world / run)
    shutil.rmtree(world / "store")
    make_store(world / "store", _changed(what))
    assert ptr_fast("resume", world / run, *moved(home, world)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(world / "store") in line
    assert CHANGES[what] in line
    assert f"--store {home}/store=NEW" in line
    assert read_record(world / run) == before
    assert [p.name for p in list_checkpoints(world / run)] == {"base": ["000003"], "fine": ["000000", "000003"]}[run]


def test_a_damaged_store_is_named(home, world, capsys):
    part = next((world / "store" / "steps").glob("*.arrow"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(data)
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(part) in line
    assert "CRC-32" in line


def test_many_episodes_that_are_gone_are_counted(home, world, capsys):
    shutil.rmtree(world / "store")
    make_store(world / "store", new_task(1))
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 2
    assert "8 of 8 episodes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r["split"]["sources"][0]["train"].pop(), "split, train"),
        (lambda r: r["split"]["sources"][0]["validation"].append("toy_0_000"), "split, validation"),
        (lambda r: r["split"].update(mix=0.25), "split, mix"),
        (lambda r: r["spec"]["tasks"]["names"].reverse(), "spec"),
        (lambda r: r["spec"]["action"]["low"].__setitem__(0, -0.5), "spec"),
        (lambda r: r["parent"].update(step=1), "parent"),
        (lambda r: r["split"]["sources"][0]["episodes"].popitem(), "split, episodes"),
    ],
)
def test_a_record_that_is_not_the_checkpoints_is_refused(world, capsys, change, named):
    record = read_record(world / "fine")
    change(record)
    (world / "fine" / "train_config.json").write_text(json.dumps(record))
    assert ptr_fast("resume", world / "fine") == 2
    error = capsys.readouterr().err
    assert f"{world}/fine/train_config.json: {named} differs from that of {world}/fine/checkpoints/000003" in error
    assert "cp " in error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["learner"].update(cql_alpha=1.0), "config.learner.cql_alpha is 1.0"),
        (lambda c: c["rewards"].update(positive=1.0), "config.rewards.positive is 1.0"),
        (lambda c: c["act"].update(mode="search"), "config.act.mode is 'search'"),
        (lambda c: c["loop"].update(seed=3), "config.loop.seed is 3"),
        (lambda c: c["loop"].update(num_steps=9), "config.loop.num_steps is 9"),
    ],
)
def test_a_setting_that_was_changed_by_hand_is_refused(world, capsys, change, named):
    record = read_record(world / "fine")
    change(record["config"])
    (world / "fine" / "train_config.json").write_text(json.dumps(record))
    assert ptr_fast("resume", world / "fine") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert f"ptr-fast finetune --from {world}/fine" in line


def test_a_run_without_its_file_goes_on_by_the_checkpoints_record(home, world, capsys):
    (world / "base" / "train_config.json").unlink()
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 0
    assert "train_config.json is missing: the record of" in capsys.readouterr().out
    same_result(world / "base", home / "base")


def test_a_run_stopped_before_its_first_checkpoint_begins_with_the_same_episodes(home, world):
    for path in list_checkpoints(world / "base"):
        shutil.rmtree(path)
    grow(world / "store", new_task())
    assert ptr_fast("resume", world / "base", *moved(home, world)) == 0
    same_result(world / "base", home / "base")


def test_a_fine_tune_goes_on_without_its_base_run(home, world, capsys):
    record = read_record(world / "fine")
    record["parent"]["checkpoint"] = record["config"]["checkpoint"] = str(world / "nowhere" / "000006")
    write_record(world / "fine", record)
    assert ptr_fast("resume", world / "fine", *moved(home, world)) == 0
    same_result(world / "fine", home / "fine")
    shutil.rmtree(world / "fine" / "checkpoints")
    assert ptr_fast("resume", world / "fine") == 2
    error = capsys.readouterr().err
    assert "it has no checkpoint of its own yet" in error
    assert "nowhere/000006" in error


def test_a_fine_tune_stopped_before_its_first_checkpoint_begins_at_its_base(home, world, capsys):
    shutil.rmtree(world / "fine" / "checkpoints")
    assert ptr_fast("resume", world / "fine", *moved(home, world)) == 0
    same_result(world / "fine", home / "fine")


@pytest.mark.parametrize("run", ["base", "fine"])
@pytest.mark.parametrize("world_changed", [False, True])
def test_a_record_of_version_1_goes_on_and_says_what_it_lacks(home, world, capsys, run, world_changed):
    as_version_1(world / run)
    if world_changed:
        grow(world / "store", new_task())
    assert ptr_fast("resume", world / run, *moved(home, world)) == 0
    said = capsys.readouterr().out
    assert "a record of an older version: it has no digests of the episodes" in said
    assert ("are known by their ids alone" in said) == world_changed
    same_result(world / run, home / run)
    record = read_record(world / run)
    assert record["record_version"] == 2
    assert record["spec"] == read_record(home / run)["spec"]
    assert record["config"]["act"] == read_record(home / run)["config"]["act"]
    assert ptr_fast("resume", world / run, "--num-steps", "7") == 0  # and once more, beside checkpoints of version 1


@pytest.mark.parametrize("run", ["base", "fine"])
def test_a_run_of_version_1_without_a_checkpoint_begins_again(home, world, run):
    as_version_1(world / run)
    shutil.rmtree(world / run / "checkpoints")
    assert ptr_fast("resume", world / run, *moved(home, world)) == 0
    same_result(world / run, home / run)


def test_a_checkpoint_whose_record_names_no_data_is_fine_tuned_on_the_target_alone(home, world, capsys):
    """As one of the published code's: labels are told, and what it was trained on is said to be unknown."""
    write_record(world / "base", {"converted_from": "checkpoint"})
    finetune = ["finetune", "--checkpoint", world / "base", "--target", world / "target", "--num-demos", "2", *SMALL]
    assert ptr_fast(*finetune, "--out", world / "mixed") == 2
    assert "its record names no data to mix in (mix 0.9): --mix 0 trains on the target alone" in capsys.readouterr().err
    assert ptr_fast(*finetune, "--out", world / "alone", "--mix", "0") == 0
    assert "its record says nothing about rewards, the published labels are taken" in capsys.readouterr().out
    assert trained_on(read_checkpoint(world / "alone").run)[1] == [str(world / "base")]
    assert ptr_fast("resume", world / "alone", "--num-steps", "7") == 0
    assert ptr_fast("resume", world / "base") == 2
    assert "expected the keys 'config' and 'verb'" in capsys.readouterr().err


def test_all_that_went_into_the_weights_is_in_the_record(home, world):
    base, fine = (read_checkpoint(home / name) for name in ("base", "fine"))
    table = EpisodeStore.open(home / "store").episodes
    digests = dict(zip(table.episode_id, table.digest, strict=True))
    own, unknown = trained_on(fine.run)
    assert not unknown
    assert [(t.run, t.store.name, len(t.digests)) for t in own] == [
        ("", "store", 6), ("", "target", 3), (str(home / "base"), "store", 6)
    ]  # fmt: skip
    assert {**own[2].digests}.items() <= digests.items()
    assert own[0].fingerprint == EpisodeStore.open(home / "store").fingerprint()
    (nearest,) = ancestors_of(fine.run)
    assert (nearest["step"], nearest["run"]) == (6, str(home / "base"))
    assert fine.run["parent"]["weights"] == nearest["weights"]
    assert trained_on(base.run)[0][0].digests == own[2].digests
    as_version_1(world / "fine")
    old, unknown = trained_on(read_checkpoint(world / "fine").run)  # its base still lies there and is read
    assert not unknown
    assert [sorted(t.digests) for t in old] == [sorted(t.digests) for t in own]


def test_records_and_checkpoints_of_one_camera_are_read_as_they_were_written():
    """Before there could be several, a policy said ``camera`` and a run's options ``data.camera``."""
    camera = CameraSpec(name="image_0", height=16, width=24)
    names, units = ("x",), ("m",)
    spec = PolicySpec(
        cameras=(camera,),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,), high=(1.0,)),
        tasks=TaskTable(names=("task",), num_slots=2),
        control_hz=5.0,
    )
    written = to_dict(spec)
    before = {"camera": written["cameras"][0], **{key: v for key, v in written.items() if key != "cameras"}}
    assert from_dict(PolicySpec, before) == from_dict(PolicySpec, written) == spec
    for old, cameras in (("image_0", ("image_0",)), ("", ())):
        assert from_dict(DataConfig, {"stores": ["store"], "camera": old}).cameras == cameras
    assert replace(spec, cameras=()).cameras == ()  # a policy of states alone
    with pytest.raises(ValueError, match="camera names must be distinct"):
        replace(spec, cameras=(camera, camera))
