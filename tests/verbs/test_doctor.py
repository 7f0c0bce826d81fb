"""Every check of ``ptr-fast doctor``: a sound store raises no alarm, and each planted trap raises exactly its own."""

import json
from dataclasses import replace

import numpy as np
import pytest
from toy_robot import NAMES, UNITS, toy_episodes, toy_meta, write_store

from ptr_fast.data.store import Episode, EpisodeStore, StoreWriter
from ptr_fast.errors import DataError
from ptr_fast.types import CameraSpec
from ptr_robot import cli
from ptr_robot.datasets.rlds import RldsSource
from ptr_robot.diagnosis import Evidence, examine, sample_cameras
from ptr_robot.diagnosis.actions import finite_numbers, motion_gains
from ptr_robot.diagnosis.episodes import record_counts
from ptr_robot.verbs.doctor import Args, diagnose, main


def alarms(*stores, **options) -> set[str]:
    """Names of the checks that found an error or a warning."""
    return {finding.check for finding in diagnose(stores, **options) if finding.level != "note"}


def each(change):
    """Plants a trap in every episode: ``change`` returns the fields to replace."""
    return lambda episodes: [replace(toy, **change(toy)) for toy in episodes]


def some(change, which):
    """Plants a trap in the episodes ``which``."""
    return lambda episodes: [replace(t, **change(t)) if i in which else t for i, t in enumerate(episodes)]


def with_image(toy, camera, frames) -> dict:
    return {"images": {**toy.images, camera: frames}}


def with_noise(frames, seed=0):
    """The same pictures as another pass of the sensor would give them."""
    return np.clip(frames + np.random.default_rng(seed).normal(scale=1.5, size=frames.shape), 0, 245).astype(np.uint8)


def hold(frames, start, stop):
    """Frames in which ``start`` is repeated up to ``stop``."""
    index = np.arange(len(frames))
    return frames[np.where((index >= start) & (index < stop), start, index)]


def late(values, steps):
    """The sequence ``steps`` later (earlier where negative), its end repeated."""
    return values[np.clip(np.arange(len(values)) - steps, 0, len(values) - 1)]


def column(values, dims, change):
    out = values.copy()
    out[:, dims] = change(out[:, dims])
    return out


def cut(toy, num_steps) -> dict:
    images = {name: frames[: num_steps + 1] for name, frames in toy.images.items()}
    return {"states": toy.states[: num_steps + 1], "actions": toy.actions[:num_steps], "images": images}


def constant_picture(toy):
    return with_image(toy, "image_1", with_noise(np.broadcast_to(CAPPED, toy.images["image_1"].shape)))


def drifting(toy):
    """Commands without any relation to what the arm does along y."""
    return {"actions": column(toy.actions, 1, lambda y: np.random.default_rng(len(y)).permutation(y))}


CAPPED = toy_episodes(1, seed=9)[0].images["image_1"][0]
ARM = slice(0, 6)
TRAPS = {
    "black_camera": each(lambda t: with_image(t, "image_1", np.zeros_like(t.images["image_1"]))),
    "black_camera in one episode": some(lambda t: with_image(t, "image_1", np.zeros_like(t.images["image_1"])), {4}),
    "constant_camera": each(constant_picture),
    "exposure dark": each(lambda t: with_image(t, "image_1", t.images["image_1"] // 6)),
    "exposure blown out": each(
        lambda t: with_image(t, "image_0", np.clip(t.images["image_0"] * 2.8, 0, 255).astype(np.uint8))
    ),
    "frozen_frames hung": some(lambda t: with_image(t, "image_0", hold(t.images["image_0"], 5, 14)), range(0, 24, 4)),
    "frozen_frames dropped": each(
        lambda t: with_image(t, "image_1", t.images["image_1"][np.arange(len(t.states)) // 2])
    ),
    "static_start": each(
        lambda t: {"images": {n: with_noise(hold(frames, 0, 4), seed=len(frames)) for n, frames in t.images.items()}}
    ),
    "idle_start": each(
        lambda t: {
            "actions": np.concatenate([t.actions[:1] * [0, 0, 0, 0, 0, 0, 1]] * 4 + [t.actions]).astype(np.float32),
            "states": np.concatenate([t.states[:1]] * 4 + [t.states]),
            "images": {n: np.concatenate([f[:1]] * 4 + [f]) for n, f in t.images.items()},
        }
    ),
    "image_lag late": each(lambda t: with_image(t, "image_0", with_noise(late(t.images["image_0"], 2)))),
    "image_lag early": each(lambda t: with_image(t, "image_1", with_noise(late(t.images["image_1"], -1)))),
    "action_lag late": each(lambda t: {"actions": late(t.actions, -2)}),
    "action_lag early": each(lambda t: {"actions": late(t.actions, 2)}),
    "constant_dimensions": each(lambda t: {"actions": column(t.actions, 3, np.zeros_like)}),
    "constant_dimensions of the state": each(lambda t: {"states": np.zeros_like(t.states)}),
    "action_bounds clipped": each(lambda t: {"actions": column(t.actions, ARM, lambda a: 1.6 * a)}),
    "action_bounds loose": each(
        lambda t: {
            "actions": column(t.actions, ARM, lambda a: a / 50),
            "states": column(t.states, ARM, lambda s: s / 50),
        }
    ),
    "achieved_motion inverted": each(lambda t: {"states": column(t.states, 1, np.negative)}),
    "achieved_motion none": each(drifting),
    "achieved_motion in mm": each(lambda t: {"states": column(t.states, slice(0, 3), lambda s: 1000 * s)}),
    "gripper_motion": each(lambda t: {"actions": column(t.actions, 6, np.ones_like)}),
    "gripper_sign of the state": each(lambda t: {"states": column(t.states, 6, lambda g: 1 - g)}),
    "gripper_sign of both": each(
        lambda t: {"states": column(t.states, 6, lambda g: 1 - g), "actions": column(t.actions, 6, lambda g: 1 - g)}
    ),
    "short_episodes": some(lambda t: cut(t, 2), {3, 7}),
    "short_episodes of one step": some(lambda t: cut(t, 1), {3}),
    "cut_episodes": each(lambda t: cut(t, 15)),
    "duplicate_episodes": lambda episodes: [*episodes, replace(episodes[2], episode_id="copy")],
    "duplicate_episodes with other pictures": lambda episodes: [
        *episodes,
        replace(
            episodes[2], episode_id="copy", images={n: with_noise(frames) for n, frames in episodes[2].images.items()}
        ),
    ],
    "duplicate_episodes cut": lambda episodes: [
        *episodes,
        replace(episodes[2], episode_id="cut", **cut(episodes[2], 12)),
    ],
    "leaked_episodes between splits": lambda episodes: [
        *some(lambda t: {"split": "train"}, range(24))(episodes),
        replace(episodes[2], episode_id="copy", split="val"),
    ],
    "task_names empty": some(lambda t: {"task": "  "}, {1, 2}),
    "task_names in two spellings": some(lambda t: {"task": "Turn  lever."}, {2, 5}),
    "task_count": each(lambda t: {"task": f"task {t.episode_id}"}),
    "outcomes of one task": some(lambda t: {"outcome": "failure"}, range(0, 24, 3)),
    "outcomes all failed": each(lambda t: {"outcome": "failure"}),
}


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sound_store_raises_no_alarm(tmp_path, seed, encoding):
    store = write_store(tmp_path / "store", toy_episodes(seed=seed), toy_meta(encoding=encoding))
    found = diagnose([store])
    assert [f"{f.check}: {f.seen}" for f in found if f.level != "note"] == []
    assert {"image_lag", "action_lag", "achieved_motion", "outcomes"} <= {f.check for f in found}
    assert main(Args(stores=(store,), strict=True)) == 0


def test_sound_store_of_few_episodes_raises_no_alarm(tmp_path):
    for count in (1, 3):
        store = write_store(tmp_path / str(count), toy_episodes(count))
        assert alarms(store) == set()


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_raises_its_own_alarm_and_no_other(tmp_path, trap):
    store = write_store(tmp_path / "store", TRAPS[trap](toy_episodes()))
    found = [finding for finding in diagnose([store]) if finding.level != "note"]
    assert {finding.check for finding in found} == {trap.split()[0]}, [f.seen for f in found]
    for finding in found:
        assert finding.seen
        assert finding.why
        assert finding.advice
        json.dumps(finding.to_json())


@pytest.mark.parametrize(("trap", "lag"), [("image_lag late", 2), ("image_lag early", -1)])
def test_image_lag_is_measured(tmp_path, trap, lag):
    store = write_store(tmp_path / "store", TRAPS[trap](toy_episodes()))
    [finding] = [f for f in diagnose([store]) if f.check == "image_lag" and f.level == "warning"]
    assert finding.numbers["against"]["state"]["lag"] == lag
    assert finding.numbers["camera"] == ("image_0" if lag == 2 else "image_1")


@pytest.mark.parametrize(("trap", "lag"), [("action_lag late", 2), ("action_lag early", -2)])
def test_action_lag_is_measured(tmp_path, trap, lag):
    store = write_store(tmp_path / "store", TRAPS[trap](toy_episodes()))
    [finding] = [f for f in diagnose([store]) if f.check == "action_lag"]
    assert finding.numbers["lag"] == lag


def test_absolute_actions(tmp_path):
    episodes = each(lambda t: {"actions": np.concatenate([t.states[1:, ARM], t.actions[:, 6:]], axis=1)})(
        toy_episodes()
    )
    reach = np.concatenate([toy.actions for toy in episodes])
    action = replace(toy_meta().action, low=tuple(reach.min(0).tolist()), high=tuple(reach.max(0).tolist()))
    assert alarms(write_store(tmp_path / "store", episodes, toy_meta(action=action))) == {"absolute_actions"}


@pytest.mark.parametrize(("source", "level"), [("data", "note"), ("reference", "warning"), ("unfinished", "error")])
def test_bounds_at_percentiles_of_the_data(tmp_path, source, level):
    episodes = toy_episodes()
    low, high = np.quantile(np.concatenate([toy.actions for toy in episodes]), [0.01, 0.99], axis=0)
    action = replace(toy_meta().action, low=tuple(low.tolist()), high=tuple(high.tolist()), bounds_source=source)
    store = write_store(tmp_path / "store", episodes, toy_meta(action=action))
    assert [f.level for f in diagnose([store]) if f.check == "action_bounds"] == [level]


def test_gain_is_the_made_up_one(tmp_path):
    evidence = look(write_store(tmp_path / "store", toy_episodes()))
    gains = motion_gains(evidence)
    assert len(gains) == 6
    assert [gain for _, gain in gains.values()] == pytest.approx([0.9] * 6, abs=0.02)


def test_arm_with_inertia_raises_no_alarm(tmp_path):
    """An arm that goes half of its way within the step and most of the rest in the next one."""

    def lazy(toy):
        before = np.concatenate([np.zeros((1, 6), np.float32), toy.actions[:-1, ARM]])
        moves = 0.5 * toy.actions[:, ARM] + 0.4 * before
        path = np.concatenate([toy.states[:1, ARM], toy.states[0, ARM] + np.cumsum(moves, axis=0)])
        return {"states": np.concatenate([path, toy.states[:, 6:]], axis=1)}

    found = diagnose([write_store(tmp_path / "store", each(lazy)(toy_episodes()))])
    assert {f.check for f in found if f.level != "note"} == set()
    [lag] = [f for f in found if f.check == "action_lag"]
    assert lag.numbers["by_lag"][1] > 0.5


@pytest.mark.parametrize(("unit", "flipped"), [
    ("-1 opens, +1 closes", True),
    ("1 = closed", True),
    ("1 = open, 0 = closed", False),
    ("", False),
])  # fmt: skip
def test_gripper_convention_in_the_unit(tmp_path, unit, flipped):
    action = replace(toy_meta().action, units=(*UNITS[:6], unit))
    closes_at_one = each(lambda t: {"actions": column(t.actions, 6, lambda g: 1 - g)})(toy_episodes())
    for name, episodes, sound in (("a", closes_at_one, flipped), ("b", toy_episodes(), not flipped)):
        store = write_store(tmp_path / name, episodes, toy_meta(action=action))
        assert alarms(store) == (set() if sound else {"gripper_sign"})


def test_angles_are_compared_across_the_turn(tmp_path):
    episodes = each(lambda t: {"states": column(t.states, 5, lambda yaw: (yaw + 3.1 + np.pi) % (2 * np.pi) - np.pi)})
    turned = episodes(toy_episodes())
    assert max(np.abs(np.diff(toy.states[:, 5])).max() for toy in turned) > 6
    assert alarms(write_store(tmp_path / "store", turned)) == set()


@pytest.mark.parametrize(("flag", "check", "level"), [
    ("terminal_flags_all_zero", "terminal_flags", "warning"),
    ("rewards_all_zero", "source_rewards", "note"),
])  # fmt: skip
def test_flags_of_the_source(tmp_path, flag, check, level):
    for value in (True, False):
        store = write_store(tmp_path / f"{value}", toy_episodes(6), toy_meta(source={flag: value}))
        assert [f.level for f in diagnose([store]) if f.check == check] == ([level] if value else [])


def test_damaged_frame_is_named(tmp_path):
    store = write_store(tmp_path / "store", toy_episodes(6))
    frame = bytes(EpisodeStore.open(store).frame_bytes("image_1", 2))
    overwrite(store, frame, b"\0" * len(frame))
    found = [f for f in diagnose([store]) if f.level == "error"]
    assert {f.check for f in found} == {"broken_frames", "damaged_files"}
    [broken] = [f for f in found if f.check == "broken_frames"]
    assert broken.episodes == ("toy_0_000",)
    assert "frame 2 " in broken.seen


def test_damaged_numbers_are_one_error(tmp_path):
    store = write_store(tmp_path / "store", toy_episodes(6))
    overwrite(store, EpisodeStore.open(store).state[3].tobytes(), b"\0" * 28)
    [error] = [f for f in diagnose([store]) if f.level == "error"]
    assert error.check == "readable"
    assert "state" in error.seen


def test_frames_of_another_size(tmp_path):
    store = write_store(tmp_path / "store", toy_episodes(6))
    meta = json.loads((store / "meta.json").read_text())
    meta["cameras"][0]["height"] = 64
    (store / "meta.json").write_text(json.dumps(meta))
    [error] = [f for f in diagnose([store]) if f.level == "error"]
    assert error.check == "broken_frames"
    assert error.numbers["bad"] == error.numbers["sampled"]


def test_numbers_that_are_not_finite(tmp_path):
    evidence = look(write_store(tmp_path / "store", toy_episodes(6)))
    assert finite_numbers(evidence) == []
    evidence.actions[4, 2] = np.nan
    [finding] = finite_numbers(evidence)
    assert finding.episodes == ("toy_0_000",)
    assert [f.check for f in examine(evidence) if f.level == "error"] == ["finite_numbers"]


def test_more_frames_than_steps_need(tmp_path):
    evidence = look(write_store(tmp_path / "store", toy_episodes(6)))
    assert record_counts(evidence) == []
    num_frames = evidence.episodes.num_frames.copy()
    num_frames[2] += 3
    evidence.store.episodes = replace(evidence.episodes, num_frames=num_frames)
    [finding] = record_counts(evidence)
    assert finding.level == "error"
    assert finding.episodes == ("toy_0_002",)


@pytest.mark.parametrize(("names", "check", "level"), [
    (("bridge_train", "bridge_val"), "leaked_episodes", "error"),
    (("old", "new"), "shared_episodes", "warning"),
])  # fmt: skip
def test_the_same_episodes_in_two_stores(tmp_path, names, check, level):
    first = write_store(tmp_path / names[0], toy_episodes(12))
    mixed = [replace(toy, episode_id=f"other {toy.episode_id}") for toy in toy_episodes(12)[:4]]
    second = write_store(tmp_path / names[1], mixed + toy_episodes(12, seed=1))
    found = [f for f in diagnose([first, second]) if f.level != "note"]
    assert [(f.check, f.level) for f in found] == [(check, level)]
    assert 4 in found[0].numbers.values()


def test_sound_stores_fit_together(tmp_path):
    stores = [write_store(tmp_path / str(seed), toy_episodes(12, seed=seed)) for seed in (0, 1)]
    assert alarms(*stores) == set()


@pytest.mark.parametrize(("change", "meta", "words"), [
    (lambda t: {}, {"control_hz": 10.0}, "control rate: 5 and 10 Hz"),
    (lambda t: {}, {"action": replace(toy_meta().action, high=(0.06,) * 3 + (0.25,) * 3 + (1.0,))}, "bounds (high)"),
    (lambda t: {"task": t.task.upper()}, {}, "two spellings"),
    (lambda t: {"states": column(t.states, slice(0, 3), lambda s: 3 * s)}, {}, "commanded unit: x: 0.898 and 2.71"),
])  # fmt: skip
def test_stores_that_do_not_fit_together(tmp_path, change, meta, words):
    first = write_store(tmp_path / "a", toy_episodes(12))
    second = write_store(tmp_path / "b", each(change)(toy_episodes(12, seed=1)), toy_meta(**meta))
    [finding] = [f for f in diagnose([first, second]) if f.level != "note"]
    assert finding.check == "mismatched_stores"
    assert words in finding.seen


def test_empty_store_is_an_error(tmp_path):
    store = tmp_path / "store"
    write_store(store, [], toy_meta())
    assert alarms(store) == {"readable"}


def test_no_store_is_refused(tmp_path, capsys):
    with pytest.raises(DataError, match="not a store"):
        diagnose([tmp_path])
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "not a store" in capsys.readouterr().err


def test_exit_codes_and_json(tmp_path, capsys):
    warned = write_store(tmp_path / "warned", TRAPS["gripper_motion"](toy_episodes(8)))
    failed = write_store(tmp_path / "failed", TRAPS["outcomes all failed"](toy_episodes(8)))
    assert cli.main(["doctor", str(warned), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert report["counts"] == {"error": 0, "warning": 1, "note": report["counts"]["note"]}
    assert report["findings"][0]["check"] == "gripper_motion"
    assert cli.main(["doctor", str(warned), "--strict"]) == 1
    assert cli.main(["doctor", str(failed)]) == 1
    assert "gripper_motion" in capsys.readouterr().out


def test_real_bridge_episodes(shared_dir, tmp_path):
    store = convert_bridge(shared_dir, tmp_path / "store")
    found = {(f.check, f.level): f for f in diagnose([store])}
    assert {check for check, level in found if level != "note"} == {"black_camera", "cut_episodes", "terminal_flags"}
    assert all(level != "error" for _, level in found)
    assert found["black_camera", "warning"].numbers["camera"] == "image_3"
    assert found["cut_episodes", "warning"].numbers == {"length": 10, "share": 1.0}
    assert ("source_rewards", "note") in found
    assert found["action_lag", "note"].numbers["lag"] in (0, 1)
    for motion in found["achieved_motion", "note"].numbers.values():
        assert 0.7 < motion["correlation"] < 0.95
        assert 0.6 < motion["gain"] < 1.0


@pytest.mark.parametrize("shift", [1, 2])
def test_lags_planted_into_real_bridge_episodes(shared_dir, tmp_path, shift):
    pictures = convert_bridge(shared_dir, tmp_path / "a", lambda e: {"frames": shifted(e.frames, shift)})
    found = [f for f in diagnose([pictures]) if f.check == "image_lag" and f.level == "warning"]
    assert [f.numbers["camera"] for f in found] == ["image_0", "image_1", "image_2"]
    assert {f.numbers["against"]["state"]["lag"] for f in found} == {shift}
    commands = convert_bridge(shared_dir, tmp_path / "b", lambda e: {"actions": late(e.actions, -shift)})
    [finding] = [f for f in diagnose([commands]) if f.check == "action_lag"]
    assert finding.level == "warning"
    assert finding.numbers["lag"] in (shift, shift + 1)


def shifted(frames, steps):
    return {name: [jpegs[max(0, t - steps)] for t in range(len(jpegs))] for name, jpegs in frames.items()}


def test_markup_in_task_names_is_printed_as_it_is(tmp_path, capsys):
    store = write_store(
        tmp_path / "store",
        some(lambda t: {"task": "[/red] open[bold]\x1b[31m", "outcome": "failure"}, {1})(toy_episodes(6)),
    )
    main(Args(stores=(store,)))
    out = capsys.readouterr().out
    assert "[/red] open[bold]" in out
    assert "\x1b" not in out


def test_frames_are_sampled_and_not_read_whole(tmp_path, monkeypatch):
    store = write_store(tmp_path / "store", toy_episodes(20))
    decoded = []
    frame = EpisodeStore.frame
    monkeypatch.setattr(EpisodeStore, "frame", lambda self, *args: decoded.append(args) or frame(self, *args))
    assert alarms(store, max_frames=4, max_episodes=5) == set()
    assert len(decoded) == 2 * 4 * 5


def test_wrong_arguments(tmp_path):
    for wrong in ({"stores": ()}, {"stores": (tmp_path,), "max_episodes": 0}):
        with pytest.raises(ValueError, match="at least"):
            Args(**wrong)
    with pytest.raises(ValueError, match="at least 2"):
        Args(stores=(tmp_path,), max_frames_per_episode=1)


def test_toy_robot_has_the_units_of_bridge():
    assert dict(zip(NAMES, UNITS, strict=True))["yaw"] == "rad"


def convert_bridge(shared_dir, path, change=lambda episode: {}):
    """The real episodes as a store, frames as they are; ``change`` returns fields to replace."""
    source = RldsSource(shared_dir / "data" / "bridge_rlds")
    read = [handle.read() for shard in source.shards() for handle in shard.episodes()]
    episodes = [replace(episode, **change(episode)) for episode in read]
    flags = {flag: all(episode.flags[flag] for episode in episodes) for flag in episodes[0].flags}
    cameras = tuple(CameraSpec(name=name, height=64, width=64) for name in source.cameras)
    with StoreWriter.create(path, replace(toy_meta(), cameras=cameras, source=flags)) as writer:
        for e in episodes:
            writer.add(
                Episode(episode_id=e.episode_id, task=e.task, states=e.states, actions=e.actions, frames=e.frames)
            )
    return path


def look(path) -> Evidence:
    store = EpisodeStore.open(path)
    return Evidence(path=str(path), store=store, cameras=sample_cameras(store, max_frames=8, max_episodes=512))


def overwrite(store, old: bytes, new: bytes) -> None:
    """Damages the first part of a store."""
    file = store / "steps" / "000000.arrow"
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


def test_how_far_the_value_of_success_reaches(tmp_path):
    [note] = [f for f in diagnose([write_store(tmp_path / "short", toy_episodes(6))]) if f.check == "value_reach"]
    assert note.level == "note"
    assert "rewards.num-steps 5" in note.advice
    episodes = [_long(toy, 71 + i) for i, toy in enumerate(toy_episodes(5))]
    failed = [replace(_long(episodes[0], 200), episode_id="failed", outcome="failure")]
    [warning] = [f for f in diagnose([write_store(tmp_path / "long", episodes + failed)]) if f.check == "value_reach"]
    assert warning.level == "warning"
    assert "has 73 steps: at discount 0.96, 2 of the 35 between success and failure are left" in warning.seen
    assert "discount 0.98 leaves 15 of 60" in warning.seen
    assert "after about 16,000 updates (tau 0.005, rewards.num_steps 1" in warning.why
    assert "--learner.discount" in warning.advice
    assert warning.numbers["long_steps"] == 75
    only_failures = write_store(tmp_path / "failures", failed)
    assert not [f for f in diagnose([only_failures]) if f.check == "value_reach"]


def _long(toy, num_steps):
    """The episode with its last step repeated."""
    at = np.minimum(np.arange(num_steps + 1), len(toy.actions))
    images = {name: frames[at] for name, frames in toy.images.items()}
    actions = toy.actions[np.minimum(at[:-1], len(toy.actions) - 1)]
    return replace(toy, states=toy.states[at], actions=actions, images=images)
