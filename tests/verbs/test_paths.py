"""The picture of the hand's paths, one per kind of episode."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, StateSpec
from ptr_robot.inspection.path_picture import file_names, motions
from ptr_robot.verbs.inspect import Args, main

NAMES = ("hand_x", "hand_y", "hand_z", "object_x", "object_y", "object_z", "container_x", "container_y", "container_z")


def make_store(path, names, unit="m"):
    spec = StateSpec(names=names, units=(unit,) * len(names))
    action = ActionSpec(names=("dx",), units=("m",), low=(-1.0,), high=(1.0,), bounds_source="test")
    meta = StoreMeta(cameras=(), action=action, state=spec, control_hz=20.0)
    with StoreWriter.create(path, meta) as writer:
        for index, (kind, outcome) in enumerate(
            (("fast", "success"), ("fast", "failure"), ("slow & <odd>", "success"))
        ):
            step = 0.04 if kind == "fast" else 0.01
            states = np.zeros((6, len(names)), np.float32)
            states[:, 0] = step * np.arange(6)
            actions = np.full((5, 1), step, np.float32)
            writer.add(
                Episode(
                    episode_id=f"{index}",
                    task="t",
                    states=states,
                    actions=actions,
                    frames={},
                    kind=kind,
                    outcome=outcome,
                )
            )
    return path


def test_a_picture_per_kind(tmp_path, capsys):
    path, out = make_store(tmp_path / "store", NAMES), tmp_path / "pictures"
    assert main(Args(store=path, paths=True, sheet="none", out=out)) == 0
    assert sorted(file.name for file in out.iterdir()) == ["paths-fast.svg", "paths-slow____odd_.svg"]
    root = ElementTree.parse(out / "paths-fast.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts[0] == "fast"
    assert texts[1] == (
        "2 episodes, 50 % succeeded, mean length 5 decisions (of the successes 5), mean speed 4.0 cm per decision"
    )
    assert sum(element.tag.endswith("polyline") for element in root.iter()) == 2
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 4
    assert "wrote" in capsys.readouterr().out


def test_speeds_and_lengths(tmp_path):
    from ptr_fast.data.store import EpisodeStore

    fast, slow = motions(EpisodeStore.open(make_store(tmp_path / "store", NAMES)))
    np.testing.assert_allclose(fast.speeds, np.full(10, 4.0), rtol=1e-5)
    np.testing.assert_allclose(slow.speeds, np.full(5, 1.0), rtol=1e-5)
    assert (fast.kind, fast.outcomes, fast.lengths.tolist()) == ("fast", ("success", "failure"), [5, 5])
    assert file_names(["a b/c"]) == ["paths-a_b_c.svg"]


@pytest.mark.parametrize(("unit", "speed"), [("0.1 m", 0.4), ("cm", 0.04)])
def test_places_are_in_the_units_of_the_store(tmp_path, unit, speed):
    from ptr_fast.data.store import EpisodeStore

    fast, _ = motions(EpisodeStore.open(make_store(tmp_path / "store", NAMES, unit)))
    np.testing.assert_allclose(fast.speeds, np.full(10, speed), rtol=1e-5)
    with pytest.raises(ValueError, match="in one unit out of"):
        motions(EpisodeStore.open(make_store(tmp_path / "angles", NAMES, "rad")))


def test_a_store_that_does_not_know_where_the_hand_is(tmp_path):
    path = make_store(tmp_path / "store", ("joint_1", "joint_2"))
    with pytest.raises(ValueError, match=r"paths need \['hand_x', 'hand_y', 'hand_z'\] in the state"):
        main(Args(store=path, paths=True, sheet="none", out=tmp_path / "out"))
