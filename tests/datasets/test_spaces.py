"""Names, units, gripper, bounds and rate: from options, a named or recognised layout, the source; else unknown."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rlds_writer import jpegs, picture, tensor, text, usual, usual_steps, write

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets.detect import open_source
from ptr_robot.datasets.layout import BRIDGE_HIGH, BRIDGE_LOW, BRIDGE_UNITS, builtin_layouts, read_layouts
from ptr_robot.datasets.options import Args
from ptr_robot.verbs.doctor import diagnose

NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def data(tmp_path, name="own", scale=1.0, gripper=(0, 1), state_dim=7, episodes=6):
    """Seven numbers; actions up to ``scale``, and a gripper between its ends."""
    values = [usual(num_steps=20, seed=seed, state_dim=state_dim) for seed in range(episodes)]
    for one in values:
        actions = one["steps/action"].reshape(-1, 7)
        actions[:, :6] *= scale
        actions[:, 6] = np.asarray(gripper)[actions[:, 6].astype(int)]
    return write(tmp_path / name, usual_steps(state_dim=state_dim), values, name=name)


def converted(run, source, **options):
    return EpisodeStore.open(run(source, **options)[1])


def test_seven_numbers_are_not_bridge(tmp_path, run):
    meta = converted(run, data(tmp_path)).meta
    assert meta.action.names == tuple(f"action_{i}" for i in range(7))
    assert set(meta.action.units) == set(meta.state.units) == {"unknown"}
    assert meta.action.bounds_source == "data"
    assert meta.source["unknown"] == [
        "names of the action's dimensions",
        "units of the action",
        "which action is the gripper, and which way it opens",
        "names of the state's dimensions",
        "units of the state",
        "steps per second (5 assumed)",
    ]


def test_conversion_says_what_is_unknown(tmp_path, capsys):
    source = data(tmp_path)
    assert cli.main(["convert", "--source", str(source), "--out", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert "action bounds are measured" in shown
    assert "unknown, as neither data nor options state it: names of the action's dimensions; units" in shown
    assert any(f.check == "unknown_numbers" for f in diagnose([tmp_path / "store"]))


def test_options_state_everything(tmp_path, run):
    options = {
        "action_names": NAMES,
        "action_units": ("mm", "mm", "mm", "deg", "deg", "deg", "1"),
        "gripper": ("closed=1", "open=0"),
        "state_names": tuple(f"joint_{i}" for i in range(7)),
        "state_units": ("rad",) * 7,
        "bounds": ("all=-1:1", "gripper=0:1"),
        "control_hz": 15.0,
    }
    meta = converted(run, data(tmp_path), **options).meta
    assert meta.action.names == NAMES
    assert meta.action.units == ("mm", "mm", "mm", "deg", "deg", "deg", "1 = closed, 0 = open")
    assert (meta.action.low, meta.action.high) == ((-1,) * 6 + (0,), (1,) * 7)
    assert meta.action.bounds_source == "options"
    assert (meta.state.names[3], meta.state.units, meta.control_hz) == ("joint_3", ("rad",) * 7, 15.0)
    assert meta.source["unknown"] == []


def test_a_unit_that_says_how_the_gripper_opens_keeps_its_words(tmp_path, run):
    """A store that went out as another format and came back has the units that it had."""
    units = (*("m",) * 6, "-1 opens, +1 closes")
    assert converted(run, data(tmp_path), action_names=NAMES, action_units=units).meta.action.units == units


def test_said_later(tmp_path, run):
    source = data(tmp_path)
    digests = converted(run, source).episodes.digest
    store = converted(run, source, action_names=NAMES, action_units=("m",) * 7)
    assert store.episodes.digest == digests
    assert (store.meta.action.names, store.meta.action.units[0]) == (NAMES, "m")


@pytest.mark.parametrize(
    ("name", "layout"), [("bridge_dataset", "bridge"), ("bridge", "bridge"), ("libero_spatial_no_noops", "libero")]
)
def test_recognised_by_its_own_name_and_said(tmp_path, run, capsys, name, layout):
    state_dim = 8 if layout == "libero" else 7
    gripper = (-1, 1) if layout == "libero" else (0, 1)
    source = data(tmp_path, name, 0.04 if layout == "bridge" else 1.0, gripper, state_dim)
    meta = converted(run, source).meta
    known = builtin_layouts()[layout]
    assert (meta.action.names, meta.action.units) == (known.action.names, known.action.units)
    assert (meta.action.low, meta.action.bounds_source) == (known.action.low, f"layout {layout}")
    assert (meta.state.names, meta.control_hz) == (known.state.names, known.control_hz)
    assert meta.source["unknown"] == []
    cli.main(["convert", "--source", str(source), "--out", str(tmp_path / "store")])
    assert f"taken as layout '{layout}' by the name '{name}' in dataset_info.json" in capsys.readouterr().out
    assert converted(run, source, out="none", layout="none").meta.action.names[0] == "action_0"


def test_a_description_is_shown_and_not_believed(rlds, run, tmp_path):
    """The real data set says joint velocities, as its builder's template did; its actions are displacements."""
    source = open_source(Args(source=rlds, out=tmp_path, layout="none"))
    assert "features.json says of steps/action: 'Robot action, consists of [7x joint velocities" in source.notes[-1]
    assert converted(run, rlds, layout="none").meta.action.names[0] == "action_0"


def test_a_recognised_layout_that_the_data_contradict_is_not_taken(tmp_path, run, capsys):
    source = data(tmp_path, "bridge_dataset", scale=1.0)
    meta = converted(run, source).meta
    assert meta.action.names[0] == "action_0"
    assert (meta.source["layout"], meta.action.bounds_source) == ("", "data")
    assert "9" in capsys.readouterr().out.split("lie outside its bounds")[0][-60:]
    forced = converted(run, source, out="forced", layout="bridge").meta.action
    assert (forced.low, forced.high, forced.units) == (BRIDGE_LOW, BRIDGE_HIGH, BRIDGE_UNITS)


def test_actions_outside_of_stated_bounds_are_said(tmp_path, capsys):
    arguments = ["convert", "--source", str(data(tmp_path)), "--out", str(tmp_path / "store"), "--layout", "bridge"]
    assert cli.main(arguments) == 0
    assert "note: outside the bounds (layout bridge), and clipped when loaded: 9" in capsys.readouterr().out


def test_later_episodes_may_contradict_it_too(tmp_path, run):
    """Ten still episodes first: the sample at the beginning shows nothing."""
    values = [usual(num_steps=20, seed=seed) for seed in range(40)]
    for one in values[:10]:
        one["steps/action"] *= 0.0
    meta = converted(run, write(tmp_path / "b", usual_steps(), values, name="bridge_dataset")).meta
    assert (meta.action.names[0], meta.state.names[0]) == ("action_0", "state_0")


def test_droid_has_its_own_features(tmp_path, run):
    steps = {
        "observation": {
            "exterior_image_1_left": picture(),
            "cartesian_position": tensor(6, dtype="float64"),
            "gripper_position": tensor(1, dtype="float64"),
            "joint_position": tensor(7, dtype="float64"),
        },
        "action_dict": {"cartesian_velocity": tensor(6, dtype="float64"), "gripper_position": tensor(1)},
        "action": tensor(7, dtype="float64"),
        "language_instruction": text(),
    }
    values = {
        "steps/observation/exterior_image_1_left": jpegs(4),
        "steps/observation/cartesian_position": np.arange(24.0),
        "steps/observation/gripper_position": np.zeros(4),
        "steps/action_dict/cartesian_velocity": np.full(24, 0.5),
        "steps/action_dict/gripper_position": np.ones(4),
        "steps/action": np.full(28, 9.0),
        "steps/language_instruction": [b"pour"] * 4,
    }
    source = write(tmp_path / "droid", steps, [values], name="droid")
    store = converted(run, source)
    assert store.action[0].tolist() == [0.5] * 6 + [1]
    assert store.meta.action.units[::3] == ("0.075 m", "0.15 rad", "1 = closed, 0 = open")
    assert (store.meta.control_hz, store.meta.state.names[-1]) == (15.0, "gripper")
    joints = ("action=action",)  # seven other numbers of the same data set
    assert converted(run, source, out="joints", key=joints).meta.action.names[0] == "action_0"
    with pytest.raises(
        ValueError, match=r"--key action: layout droid speaks of action_dict/cartesian_velocity, .*--layo"
    ):
        run(source, out="asked", key=joints, layout="droid")
    del steps["action_dict"], values["steps/action_dict/cartesian_velocity"]
    values["steps/observation/state"] = np.zeros(28)
    steps["observation"]["state"] = tensor(7)
    other = converted(run, write(tmp_path / "like", steps, [values], name="droid"), out="like_store")
    assert other.meta.action.names[0] == "action_0"  # another data set of that name
    with pytest.raises(DataError, match="action: 'steps/action_dict/cartesian_velocity' is not there"):
        run(tmp_path / "like", out="forced", layout="droid")


def test_a_layout_of_ones_own_and_of_a_store(tmp_path, run):
    file = tmp_path / "own.toml"
    numbers = f"names = {[f'j{i}' for i in range(7)]}\nunits = {['rad'] * 7}\n"
    file.write_text(f"[mine]\ncontrol_hz = 30\n[mine.action]\n{numbers}")
    source = data(tmp_path)
    meta = converted(run, source, layout=str(file)).meta
    assert (meta.action.names[6], meta.action.units[0], meta.control_hz) == ("j6", "rad", 30.0)
    assert (meta.action.bounds_source, meta.source["layout"]) == ("data", "mine")
    again = converted(run, data(tmp_path, "other", scale=0.1), out="like", layout=str(tmp_path / "store")).meta
    assert (again.action.low, again.action.names) == (meta.action.low, meta.action.names)
    with pytest.raises(ValueError, match=rf"--layout {tmp_path}: neither a store nor a run or checkpoint: "):
        run(source, out="wrong", layout=str(tmp_path))


def test_the_layout_of_a_run(tmp_path, run):
    """A store that grew since has other measured bounds than the run that is to be fine-tuned."""
    from ptr_fast.checkpoint import save_checkpoint
    from ptr_fast.config import ActConfig, BcConfig, EncoderConfig
    from ptr_fast.learners import make_learner
    from ptr_robot.training.matching import check_matches, make_spec
    from ptr_robot.training.sources import Source

    store = converted(run, data(tmp_path), control_hz=7.0)
    spec = make_spec([Source(role="prior", store=store, train=np.arange(4), validation=np.arange(4, 6))], [], 2)
    other = data(tmp_path / "other", "own", scale=0.5)
    with pytest.raises(ValueError, match=r"action low bounds differs: .*--layout STORE_OR_RUN"):
        check_matches(converted(run, other, out="grown", control_hz=7.0), spec)
    config = BcConfig(encoder=EncoderConfig(name="none"))
    learner = make_learner(config, spec)
    save_checkpoint(tmp_path / "run", 1, learner, spec, ActConfig(), {"split": {"sources": []}})
    check_matches(converted(run, other, out="grown", layout=str(tmp_path / "run")), spec)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[a", r"own.toml: not TOML"),
        ("x = 1", r"own.toml: expected a table \[x\] with action and state, got 1"),
        ("", r"own.toml: expected at least one table"),
        ("[a.action]\nnames = ['x']\nunits = []", r"\[a\]: .*units: expected 1 values, one for each of \['x'\], got 0"),
        (
            "[a.action]\nnames = ['x']\nunits = ['m']\nlow = [1.0]\nhigh = [0.0]",
            r"\[a\]: .*bounds of 'x': expected low < h",
        ),
        ("[a.action]\nnames = ['x']\nunit = ['m']", r"\[a\]: .*unknown key 'unit'"),
    ],
)
def test_wrong_layout_files(tmp_path, content, message):
    (tmp_path / "own.toml").write_text(content)
    with pytest.raises(DataError, match=message):
        read_layouts(tmp_path / "own.toml")


def test_every_public_layout_has_a_source():
    for name, layout in builtin_layouts().items():
        assert "/" in layout.source, name
        assert layout.action.low, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layout": "brigde"},
            r"--layout brigde: expected one of \['bridge', 'droid', 'libero', 'none'\], a TOML file",
        ),
        ({"layout": "own.toml"}, r"own.toml: missing"),
        ({"action_names": ("x",)}, r"--action-names: expected 7 values, one for each dimension, got 1"),
        ({"action_units": ("m",) * 8}, r"--action-units: expected 7 values"),
        ({"state_names": ("x", "x")}, r"state-names: expected distinct names"),
        ({"gripper": ("closed=1",)}, r"--gripper: none of the actions .* is called a gripper: add dimension=NAME"),
        ({"gripper": ("shut=1",)}, r"--gripper: expected open=... or closed=... or dimension=..."),
        ({"gripper": ("closed=up", "dimension=6")}, r"--gripper: expected numbers"),
        ({"gripper": ("closed=1", "open=1", "dimension=6")}, r"--gripper: expected two values"),
        ({"gripper": ("closed=1", "dimension=9")}, r"--gripper dimension=9: expected one of"),
        ({"flip_gripper": True}, r"--gripper: none of the actions"),
        ({"bounds": ("layout",)}, r"--bounds layout: there is no layout"),
        ({"bounds": ("reference",)}, r"--bounds reference: .* are called 'layout'"),
        ({"bounds": ("action_0=0:1",)}, r"--bounds: nothing is said about 'action_1'"),
        ({"bounds": ("all=1:0",)}, r"--bounds action_0=1:0: expected two finite numbers, the lower one first"),
        ({"bounds": ("all=1",)}, r"--bounds action_0=1: expected LOW:HIGH"),
        ({"bounds": ("nothing=0:1",)}, r"--bounds: expected action_0=... or"),
    ],
)
def test_options_that_do_not_fit(tmp_path, run, options, message):
    with pytest.raises(ValueError, match=message):
        run(data(tmp_path), **options)
    assert not (tmp_path / "store").exists()


def test_a_layout_for_another_number_of_dimensions(tmp_path, run):
    source = write(tmp_path / "ten", usual_steps(10, 8), [usual(action_dim=10, state_dim=8)], name="bridge")
    assert converted(run, source).meta.action.names[9] == "action_9"
    with pytest.raises(ValueError, match=r"--layout bridge: it has 7 actions \[.*\], these are 10; --key"):
        run(source, out="other", layout="bridge")
    meta = converted(run, data(tmp_path, state_dim=8), out="eight", layout="bridge").meta
    assert (meta.action.names, meta.state.names[0]) == (NAMES, "state_0")


@pytest.mark.parametrize(
    ("ends", "gripper", "unit", "values"),
    [
        ((0, 1), (), "1 = open, 0 = closed", {0, 1}),
        ((0, 1), ("closed=1",), "1 = open, 0 = closed", {0, 1}),
        ((-1, 1), ("closed=1",), "1 = open, -1 = closed", {-1, 1}),
        ((-1, 1), ("open=-1", "closed=1"), "1 = open, -1 = closed", {-1, 1}),
        ((0, 1), ("open=1",), "1 = closed, 0 = open", {0, 1}),
        ((0, 0.08), ("closed=0", "open=0.08"), "0.08 = closed, 0 = open", {0, np.float32(0.08)}),
    ],
)
def test_flipped_gripper(tmp_path, run, ends, gripper, unit, values):
    source = data(tmp_path, gripper=ends)
    options = {"action_names": NAMES, "gripper": gripper}
    plain = converted(run, source, out="plain", **options)
    flipped = converted(run, source, flip_gripper=True, **options)
    assert flipped.meta.action.units[6] == unit
    assert set(np.unique(flipped.action[:, 6])) == values
    np.testing.assert_allclose(flipped.action[:, 6], sum(ends) - plain.action[:, 6], atol=1e-7)
    np.testing.assert_array_equal(flipped.action[:, :6], plain.action[:, :6])
    bounds = flipped.meta.action.low[6], flipped.meta.action.high[6]
    assert bounds == pytest.approx((min(ends), max(ends)))
    assert run(source, flip_gripper=True, **options)[0].present == 6
    with pytest.raises(ValueError, match="it was made with --flip-gripper"):
        run(source, **options)


def test_a_mirror_whose_ends_nobody_knows(tmp_path, run):
    with pytest.raises(
        ValueError, match=r"--flip-gripper: the ends .* show 0 to 0.08; say both: --gripper closed=VALUE"
    ):
        run(data(tmp_path, gripper=(0, 0.08)), action_names=NAMES, flip_gripper=True)


def test_a_gripper_without_a_name(tmp_path, run):
    meta = converted(run, data(tmp_path), gripper=("closed=1", "open=0", "dimension=6")).meta
    assert (meta.action.names[6], meta.action.units[6]) == ("gripper", "1 = closed, 0 = open")


def test_measured_bounds_keep_a_rare_switch_and_a_still_dimension_apart(tmp_path, run):
    values = [usual(num_steps=100, seed=seed) for seed in range(4)]
    for number, one in enumerate(values):
        actions = one["steps/action"].reshape(-1, 7)
        actions[:, 6] = 1
        actions[:, 0] = 0
        if number == 0:
            actions[50, 6] = 0  # one of four hundred
    action = converted(run, write(tmp_path / "own", usual_steps(), values)).meta.action
    assert (action.low[6], action.high[6]) == (0, 1)
    assert (action.low[0], action.high[0]) == (-1e-3, 1e-3)


def test_doctor_reads_every_gripper(tmp_path, run):
    """Hands begin open: a unit that says so with any numbers raises no alarm, and the other way round does."""
    values = [usual(num_steps=30, seed=seed) for seed in range(8)]
    for one in values:
        actions = one["steps/action"].reshape(-1, 7)
        actions[:, 6] = np.where(np.arange(30) < 10, -1.0, 1.0)
    source = write(tmp_path / "own", usual_steps(), values)
    for name, said, alarm in (("a", ("closed=1", "open=-1"), False), ("b", ("closed=-1", "open=1"), True)):
        run(source, out=name, action_names=NAMES, gripper=said)
        assert ("gripper_sign" in {f.check for f in diagnose([tmp_path / name])}) is alarm


def test_doctor_names_tasks_that_are_counters(tmp_path, run):
    values = [usual(seed=seed, task=task) for seed, task in enumerate([b"run 7", b"2024-03-05", b"open the door"])]
    run(write(tmp_path / "own", usual_steps(), values))
    (finding,) = [f for f in diagnose([tmp_path / "store"]) if "counter" in f.why]
    assert finding.seen.startswith("the task of 2 episodes is a number, a date or a word such as run: 'run 7'")


def test_a_robot_takes_no_unit_for_another(tmp_path, run):
    """What is unknown fits no robot that knows its units, and any that says nothing."""
    from ptr_robot.robots.interface import check_fits
    from ptr_robot.training.matching import make_spec
    from ptr_robot.training.sources import Source

    store = converted(run, data(tmp_path), action_names=NAMES, state_names=NAMES)
    spec = make_spec([Source(role="prior", store=store, train=np.arange(4), validation=np.arange(4, 6))], [], 0)

    arm = SimpleNamespace(
        name="arm",
        observation_features={**dict.fromkeys(NAMES, float), "front": (16, 24, 3)},
        action_features=dict.fromkeys(NAMES, float),
        units=dict(zip(NAMES, BRIDGE_UNITS, strict=True)),
        control_hz=0.0,
    )
    with pytest.raises(ValueError, match="state 'x' is in 'm', the checkpoint's is in 'unknown'"):
        check_fits(arm, spec)
    arm.units = {}
    check_fits(arm, spec)


def test_a_killed_conversion_is_not_trained_on(tmp_path, run):
    from ptr_robot.training.matching import check_matches, make_spec
    from ptr_robot.training.sources import Source

    store = converted(run, data(tmp_path))
    source = Source(role="prior", store=store, train=np.arange(4), validation=np.arange(4, 6))
    spec = make_spec([source], [], 0)
    store.meta = replace(store.meta, action=replace(store.meta.action, bounds_source="unfinished"))
    for look in (lambda: make_spec([source], [], 0), lambda: check_matches(store, spec)):
        with pytest.raises(DataError, match="placeholders, the conversion did not come to its end; run the same"):
            look()
